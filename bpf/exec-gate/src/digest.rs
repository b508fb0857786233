//! SHA-256 of what is executed, for policies that look at it.
//!
//! The content is read from the descriptor that was resolved, never by path again. What was read is kept under the
//! file's identity, size and times: a content that changes changes the change time, which nobody in a sandbox can set.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{CWD, Mode, OFlags, Statx, openat};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::cache::{Cache, is_settled};
use crate::file::{FileId, status};
use crate::resolve::Found;

/// Largest file whose content is looked at.
pub const SIZE_MAX: u64 = 512 << 20;
/// Files whose content is kept in mind for one sandbox (twice this at most).
const KNOWN_MAX: usize = 1024;
/// Files of one sandbox that are read at the same time. The threads for it belong to all sandboxes.
const READERS: usize = 2;
/// Bytes of one read.
const CHUNK: usize = 256 << 10;
/// Readings of a file that changes meanwhile, before it is given up.
const ATTEMPTS: u32 = 3;

/// The contents of one sandbox's executables.
#[derive(Debug)]
pub struct Digests {
    known: Mutex<Cache<FileId, String>>,
    readers: Arc<Semaphore>,
}

impl Default for Digests {
    fn default() -> Self {
        Self { known: Mutex::new(Cache::new(KNOWN_MAX)), readers: Arc::new(Semaphore::new(READERS)) }
    }
}

impl Digests {
    /// What is known of a file, in hex.
    pub fn known(&self, file: &Found) -> Option<String> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&file.id)
    }

    /// The right to read a file. Waits while others of the sandbox read theirs; `None` when the gate ends.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.readers).acquire_owned().await.ok()
    }

    /// SHA-256 of a file's content in hex. May take a second. The error is a sentence.
    pub fn read(&self, file: &Found) -> Result<String, String> {
        if let Some(digest) = self.known(file) {
            return Ok(digest);
        }
        let named = || String::from_utf8_lossy(&file.path).into_owned();
        let fail = |why: &dyn std::fmt::Display| {
            format!("the content of {} is part of the policy and cannot be read ({why})", named())
        };
        // Before the first byte: what changes later has another time then.
        let settled = is_settled(&file.id);
        let opened = open(file.fd.as_fd()).map_err(|error| fail(&error))?;
        for _ in 0..ATTEMPTS {
            let before = status(opened.as_fd()).map_err(|error| fail(&error))?;
            if before.stx_size > SIZE_MAX {
                return Err(too_large(&named()));
            }
            let Some(digest) = hash(&opened).map_err(|error| fail(&error))? else {
                return Err(too_large(&named()));
            };
            let after = status(opened.as_fd()).map_err(|error| fail(&error))?;
            if state(&before) != state(&after) {
                continue;
            }
            if settled && state(&before) == (file.id.size, file.id.changed, file.id.modified) {
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.put(file.id, digest.clone());
            }
            return Ok(digest);
        }
        Err(fail(&"it changes while it is read"))
    }
}

fn too_large(named: &str) -> String {
    format!("the content of {named} is part of the policy, and it is larger than {} MiB", SIZE_MAX >> 20)
}

// Through /proc, so that it is the same file however its path changes.
fn open(fd: BorrowedFd<'_>) -> std::io::Result<File> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(File::from(openat(CWD, path, flags, Mode::empty())?))
}

fn state(stat: &Statx) -> (u64, (i64, u32), (i64, u32)) {
    let (changed, modified) = (stat.stx_ctime, stat.stx_mtime);
    (stat.stx_size, (changed.tv_sec, changed.tv_nsec), (modified.tv_sec, modified.tv_nsec))
}

// `None`: it has more bytes than is looked at.
fn hash(file: &File) -> std::io::Result<Option<String>> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut done = 0;
    loop {
        let size = match file.read_at(&mut chunk, done) {
            Ok(0) => break,
            Ok(size) => size,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        done += size as u64;
        if done > SIZE_MAX {
            return Ok(None);
        }
        hash.update(&chunk[..size]);
    }
    Ok(Some(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::Mounts;
    use crate::resolve::Kind;
    use std::path::Path;

    fn found(path: &Path) -> Found {
        let fd = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let (id, _, stat) = Mounts::default().identify(fd.as_fd(), std::process::id() as i32).unwrap();
        let path = path.as_os_str().as_encoded_bytes().to_vec();
        Found { fd, path, id, kind: Kind::File, mode: u32::from(stat.stx_mode), mounts: Vec::new() }
    }

    // printf abc | sha256sum
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_content_is_kept_only_when_a_later_change_would_show() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "abc").unwrap();
        let digests = Digests::default();
        let fresh = found(&path);
        assert_eq!(digests.read(&fresh).unwrap(), ABC);
        assert_eq!(digests.known(&fresh), None);
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(digests.read(&fresh).unwrap(), ABC);
        assert_eq!(digests.known(&fresh).unwrap(), ABC);
        std::fs::write(&path, "abd").unwrap();
        assert_eq!(digests.known(&found(&path)), None);
        assert_ne!(digests.read(&found(&path)).unwrap(), ABC);
    }

    #[test]
    fn what_cannot_be_read_or_is_too_large_is_an_error_and_a_small_one_beside_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let digests = Digests::default();
        // It can be opened, and its reads fail.
        let error = digests.read(&found(folder.path())).unwrap_err();
        assert!(error.contains("cannot be read (Is a directory"), "{error}");
        let path = folder.path().join("file");
        std::fs::File::create(&path).unwrap().set_len(SIZE_MAX + 1).unwrap();
        let error = digests.read(&found(&path)).unwrap_err();
        assert!(error.contains("larger than 512 MiB"), "{error}");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(digests.read(&found(&path)).unwrap(), ABC);
    }
}
