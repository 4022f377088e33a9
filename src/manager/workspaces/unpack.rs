//! Archives that are unpacked into a workspace: nothing of them comes to be outside of it, nothing but files, directories
//! and links within it comes of them, and no more than is allowed.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};

use flate2::read::MultiGzDecoder;
use nix::unistd::symlinkat;
use tar::PaxExtensions;
use zip::ZipArchive;

use job::workspace::{InnerPath, Unpack};
use linux::beneath::{self, Owner};

/// The most entries of an archive.
pub(super) const ENTRIES_MAX: u64 = 200_000;
/// The longest name that stands in an entry of its own, and the longest list of extensions.
const NAME_BYTES: u64 = 16 << 10;
const EXTENSIONS_BYTES: u64 = 256 << 10;
/// Where the end of a zip archive is looked for: its last record and the longest comment.
const ZIP_TAIL: u64 = 22 + 65_535;

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// What is wrong with it.
    #[error("{0}")]
    Refused(String),
    /// It has more than so many bytes.
    #[error("more than {0} bytes come of it")]
    TooLarge(u64),
    /// The disk fails.
    #[error(transparent)]
    Io(io::Error),
}

fn refused<T>(why: impl Into<String>) -> Result<T, UnpackError> {
    Err(UnpackError::Refused(why.into()))
}

/// The archive cannot be read.
fn unreadable(error: &io::Error) -> UnpackError {
    UnpackError::Refused(format!("it cannot be read: {error}"))
}

impl From<io::Error> for UnpackError {
    /// An error of what is written.
    fn from(error: io::Error) -> Self {
        use nix::libc::{EEXIST, EISDIR, ELOOP, ENOTDIR, ENOTEMPTY};
        match error.raw_os_error() {
            Some(EEXIST | EISDIR | ELOOP | ENOTDIR | ENOTEMPTY) => Self::Refused(
                "an entry is in the way of another one, or leads through a link".to_owned(),
            ),
            _ => Self::Io(error),
        }
    }
}

/// Unpacks an archive into `at`, a directory beneath `root` or `root` itself, which nobody else changes. At most `most`
/// bytes may come of it; returns how many did. Blocks.
pub(super) fn unpack(
    archive: File,
    form: Unpack,
    (root, at): (BorrowedFd<'_>, Option<&InnerPath>),
    owner: Owner,
    most: u64,
) -> Result<u64, UnpackError> {
    let mut target = Target {
        root,
        at: at.map_or("", InnerPath::as_str),
        owner,
        most,
        bytes: 0,
        entries: 0,
    };
    beneath::make_directories(root, target.at, owner)?;
    match form {
        Unpack::Tar => tar(BufReader::new(archive), &mut target)?,
        Unpack::TarGz => {
            let plain = MultiGzDecoder::new(BufReader::new(archive));
            tar(BufReader::new(plain), &mut target)?;
        }
        Unpack::Zip => zip(archive, &mut target)?,
    }
    Ok(target.bytes)
}

/// Where it is unpacked to, and what has come of it.
struct Target<'a> {
    root: BorrowedFd<'a>,
    at: &'a str,
    owner: Owner,
    most: u64,
    bytes: u64,
    entries: u64,
}

impl Target<'_> {
    /// The next entry is that of this name: where it belongs; nothing for the directory itself.
    fn place(&mut self, name: &str) -> Result<Option<InnerPath>, UnpackError> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return refused(format!("it has more than {ENTRIES_MAX} entries"));
        }
        let inner: Vec<&str> = name
            .trim_end_matches('/')
            .split('/')
            .skip_while(|part| *part == ".")
            .collect();
        let inner = inner.join("/");
        if inner.is_empty() && !name.starts_with('/') {
            return Ok(None);
        }
        let whole = match self.at {
            "" => inner,
            at => format!("{at}/{inner}"),
        };
        match InnerPath::new(whole) {
            // An absolute one has an empty name at its beginning.
            Ok(path) if !name.starts_with('/') => Ok(Some(path)),
            Ok(_) => refused(format!("{}: an absolute path", shown(name))),
            Err(error) => refused(format!("{}: {error}", shown(name))),
        }
    }

    fn directory(&mut self, name: &str) -> Result<(), UnpackError> {
        if let Some(path) = self.place(name)? {
            beneath::make_directories(self.root, path.as_str(), self.owner)?;
        }
        Ok(())
    }

    /// The directory that a path is in, made, with nothing at its name there.
    fn clear(&self, path: &InnerPath) -> Result<std::os::fd::OwnedFd, UnpackError> {
        let (parent, _) = path.split();
        let parent = beneath::make_directories(self.root, parent, self.owner)?;
        match beneath::remove_file(self.root, path.as_str()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        Ok(parent)
    }

    /// A file of so many bytes, as far as that is known.
    fn file(
        &mut self,
        name: &str,
        mode: u32,
        announced: u64,
        content: &mut dyn Read,
    ) -> Result<(), UnpackError> {
        let Some(path) = self.place(name)? else {
            return refused("an entry without a name");
        };
        let left = self.most.saturating_sub(self.bytes);
        if announced > left {
            return Err(UnpackError::TooLarge(self.most));
        }
        let parent = self.clear(&path)?;
        let mut file = beneath::new_file(parent.as_fd(), path.split().1)?;
        self.bytes += copy(content, &mut file, left, self.most)?;
        // The rest is none of an archive's business: no set-user-ID.
        beneath::give(&file, self.owner, mode & 0o777 | 0o400)?;
        Ok(())
    }

    fn link(&mut self, name: &str, to: &str) -> Result<(), UnpackError> {
        let Some(path) = self.place(name)? else {
            return refused("an entry without a name");
        };
        if !stays(&path, to) {
            return refused(format!("{}: a link that leads out", shown(name)));
        }
        let parent = self.clear(&path)?;
        symlinkat(to, parent.as_fd(), path.split().1)
            .map_err(|errno| UnpackError::from(io::Error::from(errno)))?;
        if let Some((uid, gid)) = self.owner {
            beneath::give_link(parent.as_fd(), path.split().1, (uid, gid))?;
        }
        Ok(())
    }
}

/// Copies to the end, and no more than `left`.
fn copy(from: &mut dyn Read, to: &mut File, left: u64, most: u64) -> Result<u64, UnpackError> {
    let mut piece = vec![0; 64 << 10];
    let mut copied = 0;
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => return Ok(copied),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(&error)),
        };
        copied += u64::try_from(read).unwrap_or(u64::MAX);
        if copied > left {
            return Err(UnpackError::TooLarge(most));
        }
        to.write_all(piece.get(..read).unwrap_or_default())
            .map_err(UnpackError::Io)?;
    }
}

/// Does a link at this path stay in the workspace, whatever is there?
fn stays(path: &InnerPath, to: &str) -> bool {
    if to.is_empty() || to.starts_with('/') || to.contains('\0') {
        return false;
    }
    let (parent, _) = path.split();
    let mut depth = parent.split('/').filter(|part| !part.is_empty()).count();
    for part in to.split('/') {
        match part {
            "" | "." => {}
            ".." if depth == 0 => return false,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    true
}

fn shown(name: &str) -> String {
    name.chars().take(200).collect()
}

fn text(bytes: &[u8]) -> Result<String, UnpackError> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => refused("a name that is not UTF-8"),
    }
}

/// What entries before it say of the next one.
#[derive(Default)]
struct Said {
    path: Option<String>,
    link: Option<String>,
}

/// Entries are taken as they stand, so that none of them can claim memory: names of their own are read here, up to a limit.
fn tar(archive: impl Read, target: &mut Target<'_>) -> Result<(), UnpackError> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().map_err(|error| unreadable(&error))?;
    let mut said = Said::default();
    for entry in entries.raw(true) {
        let mut entry = entry.map_err(|error| unreadable(&error))?;
        let kind = entry.header().entry_type();
        let size = entry.header().entry_size();
        let size = size.map_err(|error| unreadable(&error))?;
        if kind.is_gnu_longname() {
            said.path = Some(text(&within(&mut entry, size, NAME_BYTES)?)?);
        } else if kind.is_gnu_longlink() {
            said.link = Some(text(&within(&mut entry, size, NAME_BYTES)?)?);
        } else if kind.is_pax_local_extensions() {
            said.read(&within(&mut entry, size, EXTENSIONS_BYTES)?)?;
        } else if !kind.is_pax_global_extensions() {
            // Those are of all that follow, such as a commit's id.
            tar_entry(&mut entry, size, std::mem::take(&mut said), target)?;
        }
    }
    Ok(())
}

/// All of a small entry.
fn within(entry: &mut dyn Read, size: u64, most: u64) -> Result<Vec<u8>, UnpackError> {
    if size > most {
        return refused("a name, or a list of extensions, that is too long");
    }
    let mut bytes = Vec::new();
    let read = entry.take(most).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(&error)).map(|_| bytes)
}

fn tar_entry<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    size: u64,
    Said { path, link }: Said,
    target: &mut Target<'_>,
) -> Result<(), UnpackError> {
    let kind = entry.header().entry_type();
    let path = match path {
        Some(path) => path,
        None => text(&entry.header().path_bytes())?,
    };
    let is_file = kind.is_file() || kind.is_contiguous();
    // Old archives have directories as files with a slash at the end.
    if kind.is_dir() || (is_file && path.ends_with('/')) {
        return target.directory(&path);
    }
    if is_file {
        let mode = entry.header().mode().unwrap_or(0o644);
        return target.file(&path, mode, size, entry);
    }
    if kind.is_symlink() {
        let to = match link {
            Some(to) => to,
            None => text(&entry.header().link_name_bytes().unwrap_or_default())?,
        };
        return target.link(&path, &to);
    }
    refused(format!(
        "{}: neither a file nor a directory nor a symbolic link",
        shown(&path)
    ))
}

impl Said {
    fn read(&mut self, extensions: &[u8]) -> Result<(), UnpackError> {
        for extension in PaxExtensions::new(extensions) {
            let extension = extension.map_err(|error| unreadable(&error))?;
            let value = extension.value_bytes();
            match extension.key_bytes() {
                b"path" => self.path = Some(text(value)?),
                b"linkpath" => self.link = Some(text(value)?),
                // The header's own would be wrong.
                b"size" => return refused("a file of 8 GiB or more"),
                key if key.starts_with(b"GNU.sparse.") => return refused("a sparse file"),
                _ => {}
            }
        }
        Ok(())
    }
}

fn zip(mut archive: File, target: &mut Target<'_>) -> Result<(), UnpackError> {
    let count = zip_entries(&mut archive).map_err(|error| unreadable(&error))?;
    // Before anything is kept of each.
    if count.is_none_or(|count| count > ENTRIES_MAX) {
        return refused(format!(
            "it is no zip archive, or has more than {ENTRIES_MAX} entries"
        ));
    }
    let broken =
        |error: zip::result::ZipError| UnpackError::Refused(format!("it cannot be read: {error}"));
    let mut archive = ZipArchive::new(BufReader::new(archive)).map_err(broken)?;
    for number in 0..archive.len() {
        let mut entry = archive.by_index(number).map_err(broken)?;
        let name = text(entry.name_raw())?;
        if entry.is_dir() {
            target.directory(&name)?;
        } else if entry.is_symlink() {
            let mut to = Vec::new();
            let read = (&mut entry).take(NAME_BYTES).read_to_end(&mut to);
            read.map_err(|error| unreadable(&error))?;
            target.link(&name, &text(&to)?)?;
        } else {
            let mode = entry.unix_mode().unwrap_or(0o644);
            if !matches!(mode & nix::libc::S_IFMT, 0 | nix::libc::S_IFREG) {
                return refused(format!(
                    "{}: neither a file nor a directory nor a symbolic link",
                    shown(&name)
                ));
            }
            // What it says of its size may be wrong.
            let announced = entry.size();
            target.file(&name, mode, announced, &mut entry)?;
        }
    }
    Ok(())
}

/// How many entries a zip archive says that it has, by its last record; nothing if there is none.
fn zip_entries(archive: &mut File) -> io::Result<Option<u64>> {
    let length = archive.seek(SeekFrom::End(0))?;
    let from = length.saturating_sub(ZIP_TAIL);
    archive.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    Read::by_ref(archive)
        .take(ZIP_TAIL)
        .read_to_end(&mut tail)?;
    archive.seek(SeekFrom::Start(0))?;
    let Some(at) = tail.windows(4).rposition(|window| window == b"PK\x05\x06") else {
        return Ok(None);
    };
    let number = |at: usize, length: usize| {
        let bytes = tail.get(at..at + length)?;
        let mut all = [0; 8];
        all.get_mut(..length)?.copy_from_slice(bytes);
        Some(u64::from_le_bytes(all))
    };
    match number(at + 10, 2) {
        // It stands in a record of its own, which one before this one leads to.
        Some(0xFFFF) => {
            let Some(locator) = at.checked_sub(20) else {
                return Ok(None);
            };
            let Some(record) = number(locator + 8, 8) else {
                return Ok(None);
            };
            archive.seek(SeekFrom::Start(record.saturating_add(32)))?;
            let mut count = [0; 8];
            let read = archive.read_exact(&mut count);
            archive.seek(SeekFrom::Start(0))?;
            read.map(|()| Some(u64::from_le_bytes(count)))
        }
        count => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use tar::EntryType;

    use super::*;

    /// A directory to unpack into, beside which nothing may come to be.
    struct Place {
        home: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            std::fs::create_dir(home.path().join("in")).unwrap();
            Self { home }
        }

        fn unpack(&self, bytes: &[u8], form: Unpack, most: u64) -> Result<u64, UnpackError> {
            let path = self.home.path().join("archive");
            std::fs::write(&path, bytes).unwrap();
            let archive = File::open(&path).unwrap();
            std::fs::remove_file(path).unwrap();
            let root = File::open(self.home.path().join("in")).unwrap();
            let at = InnerPath::new("src").unwrap();
            unpack(archive, form, (root.as_fd(), Some(&at)), None, most)
        }

        fn is_clean(&self) -> bool {
            let names = std::fs::read_dir(self.home.path()).unwrap();
            names.count() == 1
        }
    }

    fn header(kind: EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o6755);
        header
    }

    /// A tar archive with one entry, whose name and link are not looked at.
    fn odd(name: &str, kind: EntryType, link: &str, content: &[u8]) -> Vec<u8> {
        let mut header = header(kind, u64::try_from(content.len()).unwrap());
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header, content).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn files_directories_and_links_within_come_of_it() {
        let long = format!("{0}/{0}", "n".repeat(150));
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |path: &str, kind, content: &[u8]| {
            let mut header = header(kind, u64::try_from(content.len()).unwrap());
            builder.append_data(&mut header, path, content).unwrap();
        };
        add("./a/", EntryType::Directory, b"");
        add("a/run", EntryType::Regular, b"first");
        add("a/run", EntryType::Regular, b"second");
        add(&long, EntryType::Regular, b"long");
        let mut link = header(EntryType::Symlink, 0);
        builder
            .append_link(&mut link, "a/link", "../a/run")
            .unwrap();
        let archive = builder.into_inner().unwrap();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&archive).unwrap();
        for (bytes, form) in [
            (archive, Unpack::Tar),
            (packed.finish().unwrap(), Unpack::TarGz),
        ] {
            let place = Place::new();
            assert_eq!(place.unpack(&bytes, form, 1000).unwrap(), 15);
            let src = place.home.path().join("in/src");
            assert_eq!(
                std::fs::read_to_string(src.join("a/link")).unwrap(),
                "second"
            );
            assert_eq!(std::fs::read_to_string(src.join(&long)).unwrap(), "long");
            let mode = std::fs::metadata(src.join("a/run")).unwrap().permissions();
            assert_eq!(mode.mode() & 0o7777, 0o755, "no set-user-ID");
            assert!(place.is_clean());
        }
    }

    #[test]
    fn a_zip_archive_comes_out_the_same() {
        use zip::write::SimpleFileOptions;
        let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().unix_permissions(0o755);
        writer.add_directory("a", options).unwrap();
        writer.start_file("a/run", options).unwrap();
        writer.write_all(&[b'x'; 5000]).unwrap();
        writer.add_symlink("link", "a/run", options).unwrap();
        let bytes = writer.finish().unwrap().into_inner();
        let place = Place::new();
        assert_eq!(place.unpack(&bytes, Unpack::Zip, 5000).unwrap(), 5000);
        let run = place.home.path().join("in/src/link");
        assert_eq!(std::fs::metadata(run).unwrap().size(), 5000);
        let place = Place::new();
        let small = place.unpack(&bytes, Unpack::Zip, 4999);
        assert!(matches!(small, Err(UnpackError::TooLarge(4999))));

        for (name, to) in [
            ("../x", None),
            ("/x", None),
            ("a/../../x", None),
            ("l", Some("../../x")),
        ] {
            let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
            match to {
                None => writer.start_file(name, options).unwrap(),
                Some(to) => writer.add_symlink(name, to, options).unwrap(),
            }
            let bytes = writer.finish().unwrap().into_inner();
            let place = Place::new();
            let unpacked = place.unpack(&bytes, Unpack::Zip, 1000);
            assert!(matches!(unpacked, Err(UnpackError::Refused(_))), "{name}");
            assert!(place.is_clean());
        }
        let unpacked = Place::new().unpack(b"PK no zip", Unpack::Zip, 1000);
        assert!(matches!(unpacked, Err(UnpackError::Refused(_))));
    }

    #[test]
    fn what_leads_out_or_is_no_file_is_refused() {
        use EntryType as E;
        for (name, kind, link) in [
            ("../x", E::Regular, ""),
            ("/x", E::Regular, ""),
            ("a/../../x", E::Regular, ""),
            ("a//x", E::Regular, ""),
            ("..", E::Directory, ""),
            ("l", E::Symlink, "/etc/passwd"),
            ("l", E::Symlink, "../../x"),
            ("l", E::Symlink, "a/../../../x"),
            ("l", E::Symlink, ""),
            ("l", E::Link, "../../../etc/passwd"),
            ("p", E::Fifo, ""),
            ("d", E::Char, ""),
            ("d", E::Block, ""),
            ("s", E::GNUSparse, ""),
        ] {
            let place = Place::new();
            let unpacked = place.unpack(&odd(name, kind, link, b""), Unpack::Tar, 1000);
            assert!(
                matches!(unpacked, Err(UnpackError::Refused(_))),
                "{name} {kind:?}"
            );
            assert!(place.is_clean(), "{name}");
        }
        let place = Place::new();
        let unpacked = place.unpack(b"no archive at all", Unpack::TarGz, 1000);
        assert!(matches!(unpacked, Err(UnpackError::Refused(_))));
    }

    #[test]
    fn nothing_is_written_through_a_link_of_the_archive() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut link = header(EntryType::Symlink, 0);
        builder.append_link(&mut link, "b", "a").unwrap();
        builder
            .append_data(&mut header(EntryType::Regular, 1), "b/x", &b"x"[..])
            .unwrap();
        let place = Place::new();
        let unpacked = place.unpack(&builder.into_inner().unwrap(), Unpack::Tar, 1000);
        assert!(matches!(unpacked, Err(UnpackError::Refused(_))));
        assert!(!place.home.path().join("in/src/a").exists());
    }

    #[test]
    fn a_bomb_is_stopped_whatever_it_says_of_itself() {
        // Ten megabytes of nothing are ten kilobytes.
        let zeros = vec![0; 10 << 20];
        let archive = odd("zeros", EntryType::Regular, "", &zeros);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(&archive).unwrap();
        let place = Place::new();
        let unpacked = place.unpack(&packed.finish().unwrap(), Unpack::TarGz, 1 << 20);
        assert!(matches!(unpacked, Err(UnpackError::TooLarge(_))));
        // One that says that it has ten terabytes, and ends.
        let mut header = header(EntryType::Regular, 10 << 40);
        header.as_old_mut().name[0] = b'x';
        header.set_cksum();
        let unpacked = place.unpack(header.as_bytes(), Unpack::Tar, 1 << 30);
        assert!(matches!(unpacked, Err(UnpackError::TooLarge(_))));
        // A name of a megabyte.
        let name = odd(
            "././@LongLink",
            EntryType::GNULongName,
            "",
            &[b'n'; 1 << 20],
        );
        let unpacked = place.unpack(&name, Unpack::Tar, 1 << 30);
        assert!(matches!(unpacked, Err(UnpackError::Refused(_))));
    }
}
