//! The walk from component to component, for paths that the kernel's own walk on our behalf would get wrong, or of which the
//! mounts on the way matter.

use std::collections::VecDeque;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use rustix::fs::{FileType, Mode, OFlags, Statx, fstatfs, openat, readlinkat};

use crate::file::status;
use crate::resolve::{Failure, Found, PATH_FLAGS, Root, View, file_type, refused};
use crate::tracee;

/// `MAXSYMLINKS` of linux/namei.h.
const LINKS_MAX: u32 = 40;
/// `PROC_SUPER_MAGIC` of linux/magic.h.
const PROC_MAGIC: i64 = 0x9fa0;
/// Inode number of the root of a procfs (`PROC_ROOT_INO`).
const PROC_ROOT_INODE: u64 = 1;
/// Components that a walk may take, links included.
const STEPS_MAX: u32 = 4096;

/// Where a walk begins.
#[derive(Debug)]
pub(crate) struct Base {
    pub fd: OwnedFd,
    /// As /proc shows it.
    pub name: Vec<u8>,
}

/// One walk.
pub(crate) struct Walk<'a> {
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

impl<'a> Walk<'a> {
    /// A walk from the root, or from `base`.
    pub fn new(view: &'a View, tid: i32, root: Arc<Root>, base: Option<Base>, mounts: Vec<u64>) -> Self {
        Self { view, tid, root, base, stack: Vec::new(), links: 0, mounts }
    }

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

    /// Finds what `path` means.
    pub fn run(&mut self, path: &[u8], follow: bool) -> Result<Found, Failure> {
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
