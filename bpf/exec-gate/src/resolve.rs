//! Finds the file that a path means to a caller, as the kernel will: in its root, from its working directory, with its
//! symbolic links, and with the links of `/proc` that depend on who follows them.
//!
//! The walk goes component by component on `O_PATH` descriptors, so that nothing is opened for reading, no device or
//! FIFO is touched, and no `..` or link leaves the caller's root. A wrong answer is never a permission: whatever is
//! found here is what the BPF verification demands. So every doubt is a [`Failure::Refused`].

use std::collections::VecDeque;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use rustix::fs::{CWD, FileType, Mode, OFlags, Statx, fstatfs, openat, readlinkat};

use crate::bpf::abi::Folder;
use crate::file::{FileId, Mounts, Visibility, status};
use crate::tracee;

/// `MAXSYMLINKS` of linux/namei.h.
const LINKS_MAX: u32 = 40;
/// `PROC_SUPER_MAGIC` of linux/magic.h.
const PROC_MAGIC: i64 = 0x9fa0;
/// Inode number of the root of a procfs (`PROC_ROOT_INO`).
const PROC_ROOT_INODE: u64 = 1;
/// Components that a walk may take, links included.
const STEPS_MAX: u32 = 4096;

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
        Self::Errno(errno)
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Errno(Errno::from_raw(errno.raw_os_error()))
    }
}

fn refused(what: &str, why: impl std::fmt::Display) -> Failure {
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
    /// Numbers of the mounts on the way to it, its own last.
    pub mounts: Vec<u64>,
}

/// A working directory.
#[derive(Debug)]
pub struct Cwd {
    /// An `O_PATH` descriptor.
    pub fd: OwnedFd,
    /// As the caller's mount namespace has it.
    pub path: Vec<u8>,
}

#[derive(Debug)]
struct Root {
    fd: OwnedFd,
    // Empty for the root of the mount namespace.
    name: Vec<u8>,
    key: (u64, u64),
}

/// What is known about the file system view of one sandbox.
#[derive(Debug, Default)]
pub struct View {
    /// Devices of its mounts.
    pub mounts: Mounts,
    root: Mutex<Option<Arc<Root>>>,
}

const PATH_FLAGS: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

impl View {
    // The root of the sandbox is kept open; another one (chroot) is opened each time.
    fn root_of(&self, tid: i32) -> Result<Arc<Root>, Failure> {
        let link = format!("/proc/{tid}/root");
        let flags = rustix::fs::StatxFlags::BASIC_STATS | rustix::fs::StatxFlags::MNT_ID;
        let stat = rustix::fs::statx(CWD, &link, rustix::fs::AtFlags::empty(), flags)
            .map_err(|error| refused("the caller's root cannot be read", error))?;
        let key = (stat.stx_mnt_id, stat.stx_ino);
        let mut cached = self.root.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(root) = cached.as_ref().filter(|root| root.key == key) {
            return Ok(Arc::clone(root));
        }
        let fd = openat(CWD, &link, PATH_FLAGS | OFlags::DIRECTORY, Mode::empty())
            .map_err(|error| refused("the caller's root cannot be opened", error))?;
        let opened =
            status(fd.as_fd()).map_err(|error| refused("the caller's root cannot be read", error))?;
        let name = readlinkat(CWD, &link, Vec::new())
            .map_err(|error| refused("the caller's root cannot be named", error))?
            .into_bytes();
        let name = if name == b"/" { Vec::new() } else { name };
        let root = Arc::new(Root { fd, name, key: (opened.stx_mnt_id, opened.stx_ino) });
        *cached = Some(Arc::clone(&root));
        Ok(root)
    }

    /// Finds what `path` means to the thread `tid`. `follow`: also when its last component is a symbolic link.
    pub fn find(&self, tid: i32, start: Start, path: &[u8], follow: bool) -> Result<Found, Failure> {
        if path.is_empty() {
            return Err(Errno::ENOENT.into());
        }
        let root = self.root_of(tid)?;
        let base = if path.starts_with(b"/") { None } else { Some(self.open_start(tid, start)?) };
        let mut mounts = vec![root.key.0];
        if let Some(base) = &base {
            let stat = status(base.fd.as_fd())
                .map_err(|error| refused("where the path begins cannot be read", error))?;
            mounts.push(stat.stx_mnt_id);
        }
        let mut walk = Walk { view: self, tid, root, base, stack: Vec::new(), links: 0, mounts };
        walk.run(path, follow)
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
        let name = readlinkat(CWD, format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new());
        Ok(Cwd { path: name.map_err(unknown)?.into_bytes(), fd })
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

    fn finish(
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

#[derive(Debug)]
struct Base {
    fd: OwnedFd,
    // As /proc shows it.
    name: Vec<u8>,
}

struct Walk<'a> {
    view: &'a View,
    tid: i32,
    root: Arc<Root>,
    // Below the stack: `None` is the root.
    base: Option<Base>,
    // Folders entered since then, each with its name.
    stack: Vec<(OwnedFd, Vec<u8>)>,
    links: u32,
    // Of all that was passed, each once.
    mounts: Vec<u64>,
}

fn push_front(queue: &mut VecDeque<Vec<u8>>, path: &[u8]) {
    for part in path.split(|&byte| byte == b'/').rev().filter(|part| !part.is_empty()) {
        queue.push_front(part.to_vec());
    }
}

fn file_type(stat: &Statx) -> FileType {
    FileType::from_raw_mode(u32::from(stat.stx_mode))
}

impl Walk<'_> {
    fn here(&self) -> BorrowedFd<'_> {
        match (self.stack.last(), &self.base) {
            (Some((fd, _)), _) => fd.as_fd(),
            (None, Some(base)) => base.fd.as_fd(),
            (None, None) => self.root.fd.as_fd(),
        }
    }

    fn path_here(&self) -> Vec<u8> {
        let mut path = self.base.as_ref().map_or_else(|| self.root.name.clone(), |base| base.name.clone());
        if path == b"/" {
            path.clear();
        }
        for (_, name) in &self.stack {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        path
    }

    fn go_to_root(&mut self) {
        self.base = None;
        self.stack.clear();
    }

    fn run(&mut self, path: &[u8], follow: bool) -> Result<Found, Failure> {
        let mut queue = VecDeque::new();
        push_front(&mut queue, path);
        let must_be_folder = path.ends_with(b"/") || path.ends_with(b"/.") || path == b".";
        for _ in 0..STEPS_MAX {
            let Some(part) = queue.pop_front() else {
                // A folder, where a file was wanted.
                return Err(Errno::EACCES.into());
            };
            let last = queue.is_empty();
            match part.as_slice() {
                b"." => continue,
                b".." => {
                    self.up()?;
                    continue;
                }
                _ => {}
            }
            let fd = openat(self.here(), part.as_slice(), PATH_FLAGS | OFlags::NOFOLLOW, Mode::empty())?;
            let stat = status(fd.as_fd()).map_err(|error| refused("a component cannot be read", error))?;
            if !self.mounts.contains(&stat.stx_mnt_id) {
                self.mounts.push(stat.stx_mnt_id);
            }
            match file_type(&stat) {
                FileType::Directory => self.stack.push((fd, part)),
                FileType::Symlink => {
                    if last && !follow && !must_be_folder {
                        return Err(Errno::ELOOP.into());
                    }
                    self.links += 1;
                    if self.links > LINKS_MAX {
                        return Err(Errno::ELOOP.into());
                    }
                    if let Some(found) = self.follow(fd, &part, &mut queue)? {
                        return Ok(found);
                    }
                }
                _ if last && !must_be_folder => {
                    let mut path = self.path_here();
                    path.push(b'/');
                    path.extend_from_slice(&part);
                    return self.view.finish(self.tid, fd, &stat, path, std::mem::take(&mut self.mounts));
                }
                _ => return Err(Errno::ENOTDIR.into()),
            }
        }
        Err(refused("the path has too many components", STEPS_MAX))
    }

    fn up(&mut self) -> Result<(), Failure> {
        if self.stack.pop().is_some() {
            return Ok(());
        }
        let Some(base) = self.base.take() else { return Ok(()) };
        // The name that /proc gives must lead to the same folder; a deleted or covered one has no parent to trust.
        let below = base.name.strip_prefix(self.root.name.as_slice()).filter(|name| name.starts_with(b"/"));
        let Some(below) = below else {
            return Err(refused("the path goes up from a folder outside the caller's root", "no parent"));
        };
        for part in below.split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
            let flags = PATH_FLAGS | OFlags::NOFOLLOW | OFlags::DIRECTORY;
            let fd = openat(self.here(), part, flags, Mode::empty())
                .map_err(|error| refused("the path goes up from a folder that has no name", error))?;
            self.stack.push((fd, part.to_vec()));
        }
        let same = |one: &Statx, other: &Statx| {
            (one.stx_mnt_id, one.stx_ino, one.stx_dev_major, one.stx_dev_minor)
                == (other.stx_mnt_id, other.stx_ino, other.stx_dev_major, other.stx_dev_minor)
        };
        match (status(self.here()), status(base.fd.as_fd())) {
            (Ok(one), Ok(other)) if same(&one, &other) => {
                self.stack.pop();
                Ok(())
            }
            _ => Err(refused("the path goes up from a folder that is not where its name says", "no parent")),
        }
    }

    // Follows the symbolic link `link`, called `name` in the current folder.
    fn follow(
        &mut self,
        link: OwnedFd,
        name: &[u8],
        queue: &mut VecDeque<Vec<u8>>,
    ) -> Result<Option<Found>, Failure> {
        let system = fstatfs(&link).map_err(|error| refused("a link cannot be read", error))?;
        if system.f_type as i64 == PROC_MAGIC {
            return self.follow_in_proc(link, name, queue);
        }
        let target = readlinkat(&link, "", Vec::new())?.into_bytes();
        self.follow_text(&target, queue)?;
        Ok(None)
    }

    fn follow_text(&mut self, target: &[u8], queue: &mut VecDeque<Vec<u8>>) -> Result<(), Failure> {
        if target.is_empty() {
            return Err(Errno::ENOENT.into());
        }
        if target.starts_with(b"/") {
            self.go_to_root();
        }
        // A link to "x/" must lead to a folder; whatever follows it demands that too, and nothing else may.
        if target.ends_with(b"/") && queue.is_empty() {
            queue.push_front(b".".to_vec());
        }
        push_front(queue, target);
        Ok(())
    }

    // `self` and `thread-self` mean the caller, not this process; links below a process are not text but files.
    fn follow_in_proc(
        &mut self,
        link: OwnedFd,
        name: &[u8],
        queue: &mut VecDeque<Vec<u8>>,
    ) -> Result<Option<Found>, Failure> {
        let here = status(self.here()).map_err(|error| refused("a folder of /proc cannot be read", error))?;
        if here.stx_ino == PROC_ROOT_INODE {
            match name {
                b"self" | b"thread-self" => {
                    let (thread, process) = self.numbers_in(self.here())?;
                    let text = match name {
                        b"self" => format!("{process}"),
                        _ => format!("{process}/task/{thread}"),
                    };
                    self.follow_text(text.as_bytes(), queue)?;
                }
                _ => {
                    let target = readlinkat(&link, "", Vec::new())?.into_bytes();
                    self.follow_text(&target, queue)?;
                }
            }
            return Ok(None);
        }
        let fd = openat(self.here(), name, PATH_FLAGS, Mode::empty())?;
        let target = readlinkat(&link, "", Vec::new())?.into_bytes();
        let stat =
            status(fd.as_fd()).map_err(|error| refused("the target of a link cannot be read", error))?;
        if file_type(&stat) == FileType::Directory {
            self.stack.clear();
            self.base = Some(Base { fd, name: target });
            return Ok(None);
        }
        if !queue.is_empty() {
            return Err(Errno::ENOTDIR.into());
        }
        let stat = status(fd.as_fd()).map_err(|error| refused("the file cannot be read", error))?;
        self.view.finish(self.tid, fd, &stat, target, std::mem::take(&mut self.mounts)).map(Some)
    }

    // The caller's numbers in the pid namespace of the procfs whose root is `proc`: those under which it finds a task
    // with the caller's start time and innermost numbers.
    fn numbers_in(&self, proc: BorrowedFd<'_>) -> Result<(i32, i32), Failure> {
        let (threads, processes) = tracee::namespace_ids(self.tid);
        let own = fs::read(format!("/proc/{}/stat", self.tid)).ok().and_then(|stat| start_time(&stat));
        for (&thread, &process) in threads.iter().zip(&processes).rev() {
            let path = format!("{process}/task/{thread}/stat");
            let Ok(file) = openat(proc, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
                continue;
            };
            let mut text = Vec::new();
            if std::io::Read::read_to_end(&mut fs::File::from(file), &mut text).is_ok()
                && own.is_some()
                && start_time(&text) == own
            {
                return Ok((thread, process));
            }
        }
        // A procfs of a namespace that the caller is not in.
        Err(Errno::ENOENT.into())
    }
}

// Field 22 of proc_pid_stat(5). The name in field 2 may hold anything, also brackets.
fn start_time(stat: &[u8]) -> Option<u64> {
    let after = stat.iter().rposition(|&byte| byte == b')')? + 2;
    let text = std::str::from_utf8(stat.get(after..)?).ok()?;
    text.split(' ').nth(19)?.parse().ok()
}
