//! Small files that somebody else has written: settings, policies.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;

/// The file's text, and what was found of it. A pipe, a socket or a device is refused: it would be waited for.
///
/// # Errors
/// If it cannot be read, is no regular file or no text.
pub fn read_text(path: &Path) -> io::Result<(Metadata, String)> {
    let mut file: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "is no regular file",
        ));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok((found, text))
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn a_file_is_read_and_nothing_else_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (file, pipe) = (dir.path().join("file"), dir.path().join("pipe"));
        std::fs::write(&file, "text").unwrap();
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        assert_eq!(read_text(&file).unwrap().1, "text");
        for other in [pipe.as_path(), Path::new("/dev/tty"), dir.path()] {
            assert!(read_text(other).is_err(), "{}", other.display());
        }
        let refused = read_text(&pipe).unwrap_err();
        assert_eq!(refused.to_string(), "is no regular file");
    }
}
