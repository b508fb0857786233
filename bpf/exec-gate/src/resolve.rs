//! Finds the file that a path means to a caller, as the kernel will: in its root, from its working directory, with its
//! symbolic links, and with the links of `/proc` that depend on who follows them.
//!
//! The walk goes component by component on `O_PATH` descriptors, so that nothing is opened for reading, no device or
//! FIFO is touched, and no `..` or link leaves the caller's root. A wrong answer is never a permission: whatever is
//! found here is what the BPF verification demands. So every doubt is a [`Failure::Refused`].

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Statx, openat, openat2, readlinkat};

use crate::bpf::abi::Folder;
use crate::bpf::caller::RootId;
use crate::file::{FileId, Mounts, Visibility, name_of, status};
use crate::walk::{Base, Walk};

/// Why a file was not found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The kernel would fail with this.
    Errno(Errno),
    /// It is not known what the kernel would do. One sentence.
    Refused(String),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        if is_own(errno) {
            return refused("the gate itself has not enough for it", errno);
        }
        Self::Errno(errno)
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(errno: rustix::io::Errno) -> Self {
        Errno::from_raw(errno.raw_os_error()).into()
    }
}

/// Whether an error says something of this process, and nothing of what was looked at for another one.
pub(crate) fn is_own(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::EAGAIN | Errno::EINTR)
}

/// A refusal: what, and why.
pub(crate) fn refused(what: &str, why: impl std::fmt::Display) -> Failure {
    Failure::Refused(format!("{what} ({why})"))
}

/// Where a relative path begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The caller's working directory.
    Cwd,
    /// This descriptor of the caller.
    Fd(i32),
}

/// What kind of file was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A file with a name that the caller sees.
    File,
    /// A memfd, or a file on no mount of the caller.
    Anonymous,
    /// A file without a name any more.
    Deleted,
}

/// A file that was found.
#[derive(Debug)]
pub struct Found {
    /// An `O_PATH` descriptor. While it is open, the inode number is not used again.
    pub fd: OwnedFd,
    /// Absolute path as the caller's mount namespace has it, without symbolic links.
    pub path: Vec<u8>,
    /// Which file.
    pub id: FileId,
    /// What kind.
    pub kind: Kind,
    /// File type and permission bits.
    pub mode: u32,
    /// Numbers of the mounts on the way to it, its own last. Empty: they were not looked at.
    pub mounts: Vec<u64>,
}

impl Found {
    /// The same file again.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        Ok(Self {
            fd: self.fd.try_clone()?,
            path: self.path.clone(),
            id: self.id,
            kind: self.kind,
            mode: self.mode,
            mounts: self.mounts.clone(),
        })
    }
}

/// A working directory.
#[derive(Debug)]
pub struct Cwd {
    /// An `O_PATH` descriptor.
    pub fd: OwnedFd,
    /// As the caller's mount namespace has it.
    pub path: Vec<u8>,
}

/// Who asks what a path means.
#[derive(Debug, Clone, Copy)]
pub struct Who {
    /// The thread.
    pub tid: i32,
    /// Its root directory, if that is known.
    pub root: Option<RootId>,
}

/// The root directory of a caller.
#[derive(Debug)]
pub(crate) struct Root {
    pub fd: OwnedFd,
    /// Empty for the root of the mount namespace.
    pub name: Vec<u8>,
    /// Number of its mount, and inode as stat(2) has it.
    pub key: (u64, u64),
    // What it is to the kernel, where it was found to be that.
    id: Option<RootId>,
}

/// What is known about the file system view of one sandbox.
#[derive(Debug, Default)]
pub struct View {
    /// Devices of its mounts.
    pub mounts: Mounts,
    root: Mutex<Option<Arc<Root>>>,
}

pub(crate) const PATH_FLAGS: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

impl View {
    // The root of the sandbox is kept open; another one (chroot) is opened each time.
    fn root_of(&self, who: Who) -> Result<Arc<Root>, Failure> {
        let cached = || self.root.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(root) = cached().as_ref().filter(|root| root.id.is_some() && root.id == who.root) {
            return Ok(Arc::clone(root));
        }
        let link = format!("/proc/{}/root", who.tid);
        let flags = rustix::fs::StatxFlags::BASIC_STATS | rustix::fs::StatxFlags::MNT_ID;
        let stat = rustix::fs::statx(CWD, &link, rustix::fs::AtFlags::empty(), flags)
            .map_err(|error| refused("the caller's root cannot be read", error))?;
        let key = (stat.stx_mnt_id, stat.stx_ino);
        let is_known = |root: &Root| root.key == key && (root.id.is_some() || who.root.is_none());
        if let Some(root) = cached().as_ref().filter(|root| is_known(root)) {
            return Ok(Arc::clone(root));
        }
        let fd = openat(CWD, &link, PATH_FLAGS | OFlags::DIRECTORY, Mode::empty())
            .map_err(|error| refused("the caller's root cannot be opened", error))?;
        let unread = |error| refused("the caller's root cannot be read", error);
        let opened = status(fd.as_fd()).map_err(unread)?;
        // The thread may share its root with one that changes it meanwhile: what counts is what was opened.
        let (file, _) = self.mounts.identify_stat(fd.as_fd(), &opened, who.tid).map_err(unread)?;
        let id = who.root.filter(|id| {
            (u64::try_from(id.mount), id.device, id.inode) == (Ok(opened.stx_mnt_id), file.device, file.inode)
        });
        let name = readlinkat(CWD, &link, Vec::new())
            .map_err(|error| refused("the caller's root cannot be named", error))?
            .into_bytes();
        let name = if name == b"/" { Vec::new() } else { name };
        let root = Arc::new(Root { fd, name, key: (opened.stx_mnt_id, opened.stx_ino), id });
        *cached() = Some(Arc::clone(&root));
        Ok(root)
    }

    /// Finds what `path` means to a thread. `follow`: also when its last component is a symbolic link.
    pub fn find(&self, who: Who, start: Start, path: &[u8], follow: bool) -> Result<Found, Failure> {
        if path.is_empty() {
            return Err(Errno::ENOENT.into());
        }
        let tid = who.tid;
        let root = self.root_of(who)?;
        let base = if path.starts_with(b"/") { None } else { Some(self.open_start(tid, start)?) };
        let mut mounts = vec![root.key.0];
        if let Some(base) = &base {
            let stat = status(base.fd.as_fd())
                .map_err(|error| refused("where the path begins cannot be read", error))?;
            mounts.push(stat.stx_mnt_id);
        }
        Walk::new(self, tid, root, base, mounts).run(path, follow)
    }

    /// The same without the mounts on the way where they cost more to know: then `mounts` is empty.
    pub fn find_quickly(&self, who: Who, start: Start, path: &[u8], follow: bool) -> Result<Found, Failure> {
        if follow
            && path.starts_with(b"/")
            && let Some(found) = self.find_at_once(who, path)?
        {
            return Ok(found);
        }
        self.find(who, start, path, follow)
    }

    // By the kernel's own walk. `None`: only ours tells. In /proc some links depend on who follows them; those that are
    // not text make the kernel refuse here, and the others (`self`) lead to nothing that can be executed but by them.
    fn find_at_once(&self, who: Who, path: &[u8]) -> Result<Option<Found>, Failure> {
        let root = self.root_of(who)?;
        let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let Ok(fd) = openat2(&root.fd, path, PATH_FLAGS, Mode::empty(), within) else { return Ok(None) };
        let Ok(name) = name_of(fd.as_fd()) else { return Ok(None) };
        // After its name: what is deleted meanwhile is found to be.
        let stat = status(fd.as_fd()).map_err(|error| refused("the file cannot be read", error))?;
        if file_type(&stat) == FileType::Directory || !name.starts_with(b"/") || name.ends_with(b" (deleted)")
        {
            return Ok(None);
        }
        let mut found = self.finish(who.tid, fd, &stat, name, Vec::new())?;
        found.mounts.clear();
        Ok(Some(found))
    }

    /// The file behind a descriptor of the caller (`AT_EMPTY_PATH`).
    pub fn find_fd(&self, tid: i32, start: Start) -> Result<Found, Failure> {
        let base = self.open_start(tid, start)?;
        let stat = status(base.fd.as_fd()).map_err(|error| refused("the file cannot be read", error))?;
        self.finish(tid, base.fd, &stat, base.name, Vec::new())
    }

    /// The working directory of a thread, with the name that it has now.
    pub fn cwd(&self, tid: i32) -> Result<Cwd, Failure> {
        let link = format!("/proc/{tid}/cwd");
        let unknown = |error| refused("the working directory cannot be read", error);
        let fd = openat(CWD, link, PATH_FLAGS | OFlags::DIRECTORY, Mode::empty()).map_err(unknown)?;
        let path = name_of(fd.as_fd()).map_err(unknown)?;
        Ok(Cwd { path, fd })
    }

    /// A working directory as BPF compares it.
    pub fn identify_cwd(&self, tid: i32, cwd: &Cwd) -> Result<Folder, Failure> {
        let (id, _, stat) = self
            .mounts
            .identify(cwd.fd.as_fd(), tid)
            .map_err(|error| refused("the working directory cannot be identified", error))?;
        let mount = i32::try_from(stat.stx_mnt_id)
            .map_err(|error| refused("the working directory cannot be identified", error))?;
        Ok(Folder { inode: id.inode, device: id.device, mount })
    }

    fn open_start(&self, tid: i32, start: Start) -> Result<Base, Failure> {
        let link = match start {
            Start::Cwd => format!("/proc/{tid}/cwd"),
            Start::Fd(number) if number >= 0 => format!("/proc/{tid}/fd/{number}"),
            Start::Fd(_) => return Err(Errno::EBADF.into()),
        };
        let fd = openat(CWD, &link, PATH_FLAGS, Mode::empty()).map_err(|error| match (start, error) {
            (Start::Fd(_), rustix::io::Errno::NOENT) => Failure::Errno(Errno::EBADF),
            _ => refused("where the path begins cannot be opened", error),
        })?;
        let name = readlinkat(CWD, &link, Vec::new())
            .map_err(|error| refused("where the path begins cannot be named", error))?;
        Ok(Base { fd, name: name.into_bytes() })
    }

    /// What there is to know of a file that was found.
    pub(crate) fn finish(
        &self,
        tid: i32,
        fd: OwnedFd,
        stat: &Statx,
        mut path: Vec<u8>,
        mut mounts: Vec<u64>,
    ) -> Result<Found, Failure> {
        let (id, visibility) = self
            .mounts
            .identify_stat(fd.as_fd(), stat, tid)
            .map_err(|error| refused("the file cannot be identified", error))?;
        let deleted = stat.stx_nlink == 0;
        if deleted && let Some(name) = path.strip_suffix(b" (deleted)") {
            path.truncate(name.len());
        }
        let kind = match (visibility, deleted) {
            (Visibility::Unmounted, _) => Kind::Anonymous,
            (Visibility::Mounted, true) => Kind::Deleted,
            (Visibility::Mounted, false) => Kind::File,
        };
        mounts.push(stat.stx_mnt_id);
        Ok(Found { fd, path, id, kind, mode: u32::from(stat.stx_mode), mounts })
    }
}

/// What kind of file a `stat` is of.
pub(crate) fn file_type(stat: &Statx) -> FileType {
    FileType::from_raw_mode(u32::from(stat.stx_mode))
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
