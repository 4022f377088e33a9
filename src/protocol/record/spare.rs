//! Directories of jobs that are over, kept for jobs to come: making one and its record, and removing both, is most of what
//! a short job does to a disk.
//!
//! The record in it is filled with zeroes, as a new one is, and the files of output that is kept elsewhere are empty and have
//! another name. A monitor takes the directory by renaming it, which is what decides between two launches as making one does.

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::directory::{open_directory, remove};
use super::slots::LENGTH;
use super::{FILE, Writer, lock};
use crate::output;
use job::JobId;
use linux::failpoint;
use linux::sys;

const PREFIX: &str = "spare-";

fn name_of(job: JobId) -> String {
    format!("{PREFIX}{job}")
}

/// Keeps the directory of a job that is over for another; `false` if that cannot be: there is more in it than the record and
/// output that is kept elsewhere as well, or somebody reads it.
///
/// The job's program was executed, and its monitor has written all that it will.
pub fn set_aside(jobs: BorrowedFd<'_>, job: JobId, is_output_elsewhere: bool) -> io::Result<bool> {
    let directory = File::from(open_directory(jobs, job)?);
    // Where there is output it is not locked: whoever reads it at that moment would find none.
    if !has_no_more(directory.as_fd(), is_output_elsewhere)? {
        return Ok(false);
    }
    // A reader would find the next job's output in it: see `open_to_read`.
    if directory.try_lock().is_err() {
        return Ok(false);
    }
    blank(directory.as_fd())?;
    if is_output_elsewhere {
        output::put_by(&directory)?;
    }
    let (name, spare) = (job.to_string(), name_of(job));
    sys::rename_new((jobs, &name), (jobs, &spare))?;
    Ok(true)
}

/// Removes the directory of a job that is over and whose output is kept elsewhere, with all that is in it; `false` if somebody
/// reads there.
pub fn remove_over(jobs: BorrowedFd<'_>, job: JobId) -> io::Result<bool> {
    let directory = match open_directory(jobs, job) {
        Ok(directory) => File::from(directory),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    // Held to the end: whoever comes to read meanwhile would find nothing.
    if directory.try_lock().is_err() {
        return Ok(false);
    }
    output::remove(&directory)?;
    remove(jobs, job)?;
    Ok(true)
}

fn blank(directory: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = File::from(openat(directory, FILE, flags, Mode::empty())?);
    file.write_all_at(&vec![0; usize::try_from(LENGTH).unwrap_or_default()], 0)
}

/// Is there nothing but the record and what the next job may have, or else the output?
fn has_no_more(directory: BorrowedFd<'_>, is_output_elsewhere: bool) -> io::Result<bool> {
    let mut entries = Dir::openat(
        directory,
        ".",
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    for entry in entries.iter() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        let is_expected = [".", "..", FILE].map(str::as_bytes).contains(&name)
            || output::is_unused(name)
            || (is_output_elsewhere && output::is_first(name));
        if !is_expected {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes what was set aside of `spare` for the directory of `job`, and its record, which is as good as new. An error means that
/// it cannot be had. The record may fail though the directory is there, as in a directory that was just made.
pub fn take_spare(
    jobs: BorrowedFd<'_>,
    spare: JobId,
    job: JobId,
) -> io::Result<(OwnedFd, io::Result<Writer>)> {
    let directory = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let spare = name_of(spare);
    let directory = openat(jobs, spare.as_str(), directory, Mode::empty())?;
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = File::from(openat(&directory, FILE, flags, Mode::empty())?);
    // The monitor before may not have let go of it yet. Before it has the job's name, no server looks whether it is held.
    if !lock(&file)? {
        return Err(io::Error::from(Errno::EAGAIN));
    }
    failpoint::hit("spare.taking");
    sys::rename_new((jobs, &spare), (jobs, &job.to_string()))?;
    Ok((directory, Writer::begin(file)))
}

/// Removes what an earlier server has set aside. A monitor that it has launched may take one of them meanwhile, and meets
/// what it meets when its launch is discarded.
pub fn remove_spares(jobs: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut entries = Dir::openat(jobs, ".", flags, Mode::empty())?;
    for entry in entries.iter() {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().ok() else {
            continue;
        };
        if !name.starts_with(PREFIX) {
            continue;
        }
        if let Ok(directory) = openat(jobs, name, flags | OFlag::O_NOFOLLOW, Mode::empty()) {
            let _ = unlinkat(&directory, FILE, UnlinkatFlags::NoRemoveDir);
            let _ = output::remove_unused(&directory);
            let _ = unlinkat(jobs, name, UnlinkatFlags::RemoveDir);
        }
    }
    Ok(())
}

/// Opens a job's directory for whoever reads in it for longer, and keeps it from being set aside until that is closed (flock(2)).
pub fn open_to_read(jobs: BorrowedFd<'_>, job: JobId) -> io::Result<OwnedFd> {
    let directory = File::from(open_directory(jobs, job)?);
    let lock = directory.try_lock_shared();
    // Where the file system has no such locks nothing is set aside.
    let is_going = matches!(lock, Err(TryLockError::WouldBlock));
    // It may have been set aside before it was locked.
    let is_same = !is_going && {
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        let there = fstatat(jobs, job.to_string().as_str(), flags);
        let inode = |stat: nix::sys::stat::FileStat| (stat.st_dev, stat.st_ino);
        there.map(inode) == fstat(&directory).map(inode)
    };
    match is_same {
        true => Ok(directory.into()),
        false => Err(io::ErrorKind::NotFound.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{create_directory, discard, read};

    fn jobs() -> (tempfile::TempDir, File) {
        let directory = tempfile::tempdir().unwrap();
        let opened = File::open(directory.path()).unwrap();
        (directory, opened)
    }

    /// The directory of a job that is over.
    fn ended(jobs: &File) -> JobId {
        let job = JobId::generate();
        let directory = create_directory(jobs.as_fd(), job).unwrap();
        let mut writer = Writer::create(directory.as_fd()).unwrap();
        for number in 1..=3 {
            let mut record = crate::record::tests::record(number);
            record.job = job;
            writer.write(&record).unwrap();
        }
        let note = crate::record::tests::LEADER.to_bytes(crate::record::tag_of(job));
        let file = writer.file();
        file.write_all_at(&note, crate::record::LEADER_NOTE)
            .unwrap();
        job
    }

    #[test]
    fn the_next_job_finds_nothing_of_the_one_before() {
        let (keep, jobs) = jobs();
        let (before, next) = (ended(&jobs), JobId::generate());
        assert!(set_aside(jobs.as_fd(), before, false).unwrap());
        assert!(open_directory(jobs.as_fd(), before).is_err());
        let record = keep.path().join(name_of(before)).join(FILE);
        assert!(std::fs::read(record).unwrap().iter().all(|byte| *byte == 0));
        let (directory, writer) = take_spare(jobs.as_fd(), before, next).unwrap();
        let found = || read(directory.as_fd(), next).unwrap().unwrap();
        assert!(found().record.is_none() && !found().damaged);
        let mut record = crate::record::tests::record(9);
        record.job = next;
        let mut writer = writer.unwrap();
        writer.write(&record).unwrap();
        assert_eq!(found().record.unwrap().attempt, 9);
        writer.write(&record).unwrap();
        assert!(found().record.unwrap().leader.is_none());
        // One that is taken cannot be taken again.
        assert!(take_spare(jobs.as_fd(), before, JobId::generate()).is_err());
        assert!(keep.path().join(next.to_string()).exists());
    }

    #[test]
    fn what_a_disk_still_has_of_another_job_counts_as_nothing() {
        // The zeroes had not been written down when the host lost its power.
        let (keep, jobs) = jobs();
        let (before, next) = (ended(&jobs), JobId::generate());
        let path = |job: JobId| keep.path().join(job.to_string());
        std::fs::rename(path(before), path(next)).unwrap();
        let directory = open_directory(jobs.as_fd(), next).unwrap();
        let found = read(directory.as_fd(), next).unwrap().unwrap();
        assert!(found.record.is_none() && !found.damaged);
        assert!(discard(jobs.as_fd(), next).unwrap());
    }

    #[test]
    fn a_launch_with_a_spare_directory_is_discarded_as_any_other() {
        let (keep, jobs) = jobs();
        let (before, next) = (ended(&jobs), JobId::generate());
        assert!(set_aside(jobs.as_fd(), before, false).unwrap());
        drop(take_spare(jobs.as_fd(), before, next).unwrap());
        assert!(discard(jobs.as_fd(), next).unwrap());
        assert_eq!(std::fs::read_dir(keep.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_read_or_has_more_in_it_is_not_set_aside() {
        let (keep, jobs) = jobs();
        let job = ended(&jobs);
        let reader = open_to_read(jobs.as_fd(), job).unwrap();
        assert!(!set_aside(jobs.as_fd(), job, false).unwrap());
        drop(reader);
        std::fs::write(keep.path().join(job.to_string()).join("log"), "x").unwrap();
        assert!(!set_aside(jobs.as_fd(), job, false).unwrap());
    }

    #[test]
    fn what_a_job_has_written_is_there_at_every_moment() {
        let (keep, jobs) = jobs();
        let job = ended(&jobs);
        std::fs::write(keep.path().join(job.to_string()).join("log"), "x").unwrap();
        std::thread::scope(|scope| {
            let tidier = scope.spawn(|| {
                let kept = (0..20_000).map(|_| set_aside(jobs.as_fd(), job, false).unwrap());
                kept.filter(|is_kept| *is_kept).count()
            });
            while !tidier.is_finished() {
                open_to_read(jobs.as_fd(), job).unwrap();
            }
            assert_eq!(tidier.join().unwrap(), 0);
        });
    }

    #[test]
    fn output_that_is_kept_elsewhere_is_gone_and_its_files_are_the_next_jobs() {
        const LOG: &str = "00000000000000000000.log";
        let (keep, jobs) = jobs();
        let (before, next) = (ended(&jobs), JobId::generate());
        let path = |name: &str| keep.path().join(name);
        for name in [LOG, "00000000000000000000.idx"] {
            std::fs::write(path(&before.to_string()).join(name), "secret").unwrap();
        }
        assert!(!set_aside(jobs.as_fd(), before, false).unwrap());
        let reader = open_to_read(jobs.as_fd(), before).unwrap();
        assert!(!set_aside(jobs.as_fd(), before, true).unwrap());
        drop(reader);
        assert!(path(&before.to_string()).join(LOG).exists());
        assert!(set_aside(jobs.as_fd(), before, true).unwrap());
        for entry in std::fs::read_dir(path(&name_of(before))).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0));
        }
        // A silent job has it, and the next one after that; each is as tidy as it was.
        drop(take_spare(jobs.as_fd(), before, next).unwrap());
        assert!(set_aside(jobs.as_fd(), next, false).unwrap());
        let last = JobId::generate();
        let (directory, writer) = take_spare(jobs.as_fd(), next, last).unwrap();
        drop(writer);
        assert!(crate::record::is_untidy(jobs.as_fd(), last));
        remove(jobs.as_fd(), last).unwrap();
        drop(directory);
        assert_eq!(std::fs::read_dir(keep.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_there_for_output_goes_with_the_directory() {
        type Removal = fn(&File, JobId, &OwnedFd);
        let removals: [Removal; 3] = [
            |jobs, job, _| assert!(discard(jobs.as_fd(), job).unwrap()),
            |jobs, job, made| crate::record::abandon(jobs.as_fd(), job, made.as_fd()),
            |jobs, _, _| remove_spares(jobs.as_fd()).unwrap(),
        ];
        for (number, remove) in removals.into_iter().enumerate() {
            let (keep, jobs) = jobs();
            let (before, next) = (ended(&jobs), JobId::generate());
            let log = keep.path().join(before.to_string());
            std::fs::write(log.join("00000000000000000000.log"), "x").unwrap();
            assert!(set_aside(jobs.as_fd(), before, true).unwrap());
            let made = match number {
                2 => File::open(keep.path().join(name_of(before)))
                    .unwrap()
                    .into(),
                _ => take_spare(jobs.as_fd(), before, next).unwrap().0,
            };
            remove(&jobs, next, &made);
            assert_eq!(
                std::fs::read_dir(keep.path()).unwrap().count(),
                0,
                "{number}"
            );
        }
    }

    #[test]
    fn output_that_is_kept_elsewhere_is_removed_unless_somebody_reads_it() {
        let (keep, jobs) = jobs();
        let job = ended(&jobs);
        let log = keep.path().join(job.to_string());
        let log = log.join("00000000000000000000.log");
        std::fs::write(&log, "x").unwrap();
        let reader = open_to_read(jobs.as_fd(), job).unwrap();
        assert!(!remove_over(jobs.as_fd(), job).unwrap());
        assert!(log.exists());
        drop(reader);
        assert!(remove_over(jobs.as_fd(), job).unwrap());
        assert!(remove_over(jobs.as_fd(), job).unwrap());
        assert_eq!(std::fs::read_dir(keep.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_an_earlier_server_has_set_aside_is_removed() {
        let (keep, jobs) = jobs();
        let (job, other) = (ended(&jobs), ended(&jobs));
        assert!(set_aside(jobs.as_fd(), job, false).unwrap());
        remove_spares(jobs.as_fd()).unwrap();
        let left: Vec<_> = std::fs::read_dir(keep.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
        assert!(open_directory(jobs.as_fd(), other).is_ok());
    }
}
