//! Walking paths whose targets are about to be granted.
//!
//! One `O_NOFOLLOW` step at a time, and a symbolic link that somebody else than root owns is refused. Otherwise what runs
//! in one life of a sandbox could replace a folder it may write by a link, and be granted the link's target in the next.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags, fstat, openat, readlinkat};
use rustix::io::Errno;

/// As the kernel limits it (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// Why a path was not opened.
#[derive(Debug)]
pub enum Walk {
    /// As the kernel says it.
    Os(Errno),
    /// A symbolic link on the way is not root's.
    ForeignLink {
        /// The link's own name.
        name: OsString,
        /// Its owner.
        uid: u32,
    },
    /// The path is not absolute.
    Relative,
}

impl fmt::Display for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Os(errno) => write!(f, "{errno}"),
            Self::ForeignLink { name, uid } => {
                write!(f, "{name:?} is a symbolic link that uid {uid} owns, not root")
            }
            Self::Relative => f.write_str("it is not absolute"),
        }
    }
}

impl From<Errno> for Walk {
    fn from(errno: Errno) -> Self {
        Self::Os(errno)
    }
}

/// Opens an absolute path with `O_PATH`, following symbolic links only where root owns them.
///
/// # Errors
/// See [`Walk`].
pub fn open_owned_by_root_links(path: &Path) -> Result<OwnedFd, Walk> {
    if !path.is_absolute() {
        return Err(Walk::Relative);
    }
    let step = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = openat(rustix::fs::CWD, "/", step, Mode::empty())?;
    let mut here = root.try_clone().map_err(|_| Walk::Os(Errno::MFILE))?;
    let mut rest = names(path.as_os_str());
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        let next = openat(&here, &name, step, Mode::empty())?;
        let stat = fstat(&next)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            here = next;
            continue;
        }
        if stat.st_uid != 0 {
            return Err(Walk::ForeignLink { name, uid: stat.st_uid });
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Walk::Os(Errno::LOOP));
        }
        let target = readlinkat(&next, "", Vec::new())?;
        let target = OsStr::from_bytes(target.as_bytes());
        if Path::new(target).is_absolute() {
            here = root.try_clone().map_err(|_| Walk::Os(Errno::MFILE))?;
        }
        let mut names = names(target);
        names.append(&mut rest);
        rest = names;
    }
    Ok(here)
}

fn names(path: &OsStr) -> VecDeque<OsString> {
    Path::new(path)
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_links_are_followed_and_missing_and_relative_paths_are_told_apart() {
        // /proc/self is a link that root owns.
        assert!(open_owned_by_root_links(Path::new("/proc/self/status")).is_ok());
        assert!(matches!(open_owned_by_root_links(Path::new("/proc/none")), Err(Walk::Os(Errno::NOENT))));
        assert!(matches!(open_owned_by_root_links(Path::new("proc")), Err(Walk::Relative)));
    }

    #[test]
    fn a_link_of_another_user_is_refused_and_the_same_link_of_root_is_not() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("needs root to give a link away; nothing was tested");
            return;
        }
        let folder = std::env::temp_dir().join(format!("clawsec-walk-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let link = folder.join("link");
        std::os::unix::fs::symlink("/etc", &link).unwrap();
        let of_root = open_owned_by_root_links(&link.join("passwd"));
        std::os::unix::fs::lchown(&link, Some(1000), Some(1000)).unwrap();
        let of_another = open_owned_by_root_links(&link.join("passwd"));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(of_root.is_ok());
        assert!(matches!(of_another, Err(Walk::ForeignLink { uid: 1000, .. })));
    }
}
