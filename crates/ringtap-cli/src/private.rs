//! A folder of this run's own, for a socket: only its user can enter it, and it goes when the run ends.
//!
//! A killed run cannot tidy up. Its folder is told by the lock that nobody holds any more, and removed by the
//! next run.

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const PREFIX: &str = "ringtap-run-";
/// Held locked for as long as the folder is in use.
const LOCK: &str = "lock";
const SOCKET: &str = "ringtap.sock";
/// A folder without a lock that is older than this was left by a run that was killed while making it.
const NEWBORN: Duration = Duration::from_secs(60);
/// Longest path of a socket.
const SOCKET_PATH_LEN: usize = 107;

/// The folder. Dropping it removes it, and what is in it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Locked as long as it is open.
    #[cfg_attr(not(test), expect(dead_code, reason = "kept open"))]
    lock: File,
}

impl Folder {
    /// Makes the folder, and removes those of runs that were killed.
    ///
    /// # Errors
    /// No place for temporary files lets us.
    pub fn new() -> Result<Self> {
        let mut refused = None;
        for base in places() {
            remove_stale(&base);
            match Self::make(&base) {
                Ok(folder) => return Ok(folder),
                Err(error) => refused = Some((base, error)),
            }
        }
        let (base, error) = refused.context("there is no place for temporary files")?;
        Err(error).with_context(|| {
            format!("cannot make a folder in {}; set TMPDIR to one that you may write to", base.display())
        })
    }

    fn make(base: &Path) -> io::Result<Self> {
        let path = base.join(format!("{PREFIX}{}", std::process::id()));
        let mut builder = fs::DirBuilder::new();
        match builder.mode(0o700).create(&path) {
            // Of a run of the same number in another pid namespace, or long ago.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let other =
                    base.join(format!("{PREFIX}{}-{}", std::process::id(), ringtap::clock::monotonic_ns()));
                builder.create(&other)?;
                Self::lock(other)
            }
            made => made.and_then(|()| Self::lock(path)),
        }
    }

    fn lock(path: PathBuf) -> io::Result<Self> {
        let locked = File::options().write(true).create_new(true).mode(0o600).open(path.join(LOCK));
        let locked = locked.and_then(|lock| {
            flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            Ok(lock)
        });
        match locked {
            Ok(lock) => Ok(Self { path, lock }),
            Err(error) => {
                let _ = fs::remove_dir_all(path);
                Err(error)
            }
        }
    }

    /// Where the socket goes.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Should it fail, the next run tries again.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Places for temporary files, the best first. A path that leaves no room for a socket's is none.
fn places() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let candidates = runtime.into_iter().chain([std::env::temp_dir(), PathBuf::from("/tmp")]);
    let room = PREFIX.len() + SOCKET.len() + 32;
    let fits = |path: &PathBuf| path.is_absolute() && path.as_os_str().len() + room <= SOCKET_PATH_LEN;
    let mut places: Vec<_> = candidates.filter(fits).collect();
    places.dedup();
    places
}

/// Removes the folders of our user's runs that ended without removing them.
fn remove_stale(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    let ours = rustix::process::geteuid().as_raw();
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let path = entry.path();
        let is_ours = fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir() && found.uid() == ours);
        if is_ours && is_stale(&path) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

fn is_stale(path: &Path) -> bool {
    match File::options().write(true).open(path.join(LOCK)) {
        Ok(lock) => {
            // Between its making and its locking, a lock is free for a moment.
            let is_empty = fs::read_dir(path).is_ok_and(|entries| entries.count() <= 1);
            flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() && !(is_empty && is_newborn(path))
        }
        Err(_) => !is_newborn(path),
    }
}

fn is_newborn(path: &Path) -> bool {
    let modified = fs::metadata(path).and_then(|found| found.modified());
    let age = modified.ok().and_then(|modified| modified.elapsed().ok());
    age.is_none_or(|age| age < NEWBORN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_with_its_run() {
        let folder = Folder::new().unwrap();
        let path = folder.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert!(!is_stale(&path), "its lock is held");
        File::create(folder.socket()).unwrap();
        let second = Folder::new().unwrap();
        assert_ne!(second.path(), path, "two in one process do not meet");
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_run_left_is_removed() {
        let base = std::env::temp_dir().join(format!("ringtap-private-{}", std::process::id()));
        fs::create_dir(&base).unwrap();
        let killed = std::mem::ManuallyDrop::new(Folder::make(&base).unwrap());
        let path = killed.path();
        fs::write(path.join(SOCKET), "").unwrap();
        remove_stale(&base);
        assert!(path.exists(), "it runs");
        flock(&killed.lock, FlockOperation::Unlock).unwrap();
        remove_stale(&base);
        assert!(!path.exists());
        fs::remove_dir(&base).unwrap();
    }
}
