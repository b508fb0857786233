//! Where things of a sandbox are on the host.

use std::path::{Path, PathBuf};

use crate::error::{Result, invalid};

/// Paths below the runtime folder, and the name of this loader's cgroups.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Only root may enter it.
    pub runtime: PathBuf,
    /// Tells loaders on one host apart: cgroups are named `clawsec-<instance>`.
    pub instance: String,
}

impl Layout {
    /// Folder of all sandboxes.
    pub fn sandboxes(&self) -> PathBuf {
        self.runtime.join("sandboxes")
    }

    /// Folder of one sandbox.
    pub fn sandbox(&self, name: &str) -> PathBuf {
        self.sandboxes().join(name)
    }

    /// Its root file system.
    pub fn rootfs(&self, name: &str) -> PathBuf {
        self.sandbox(name).join("rootfs")
    }

    /// Its OCI bundle.
    pub fn bundle(&self, name: &str) -> PathBuf {
        self.sandbox(name).join("bundle")
    }

    /// What is mounted on `/.clawsec` in it.
    pub fn shim(&self, name: &str) -> PathBuf {
        self.sandbox(name).join("shim")
    }

    /// State of runc (`--root`).
    pub fn runc(&self) -> PathBuf {
        self.runtime.join("runc")
    }

    /// Folder of the network namespace files.
    pub fn netns_folder(&self) -> PathBuf {
        self.runtime.join("netns")
    }

    /// The sandbox's network namespace, a bind mount.
    pub fn netns(&self, name: &str) -> PathBuf {
        self.netns_folder().join(name)
    }

    /// Name of this loader's folder in each cgroup hierarchy.
    pub fn cgroup_parent(&self) -> String {
        format!("clawsec-{}", self.instance)
    }

    /// OCI `cgroupsPath` of a sandbox.
    pub fn cgroups_path(&self, name: &str) -> String {
        format!("/{}/{name}", self.cgroup_parent())
    }
}

/// Checks the grammar of sandbox names: `^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$`.
///
/// # Errors
/// [`crate::Error::Invalid`].
pub fn check_sandbox_name(name: &str) -> Result<()> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = name.as_bytes();
    let ends = bytes.first().is_some_and(|&c| plain(c)) && bytes.last().is_some_and(|&c| plain(c));
    if ends && bytes.len() <= 40 && bytes.iter().all(|&c| plain(c) || c == b'-') {
        return Ok(());
    }
    invalid(format!(
        "{name:?} is no sandbox name: 1 to 40 of a-z, 0-9 and -, beginning and ending with a letter or digit"
    ))
}

/// Checks the grammar of subject names: `^[a-z][a-z0-9-]{0,31}$`.
pub(crate) fn check_subject_name(name: &str) -> Result<()> {
    let bytes = name.as_bytes();
    let rest = |&c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if bytes.first().is_some_and(u8::is_ascii_lowercase) && bytes.len() <= 32 && bytes.iter().all(rest) {
        return Ok(());
    }
    invalid(format!("{name:?} is no subject name: 1 to 32 of a-z, 0-9 and -, beginning with a letter"))
}

/// An absolute path of plain names, without `..`, `.`, doubled or trailing slashes: what is compared is what is used.
pub(crate) fn check_path(what: &str, path: &str) -> Result<()> {
    let plain = path.strip_prefix('/').is_some_and(|rest| {
        rest.split('/')
            .all(|name| !matches!(name, "" | "." | "..") && !name.contains('\0') && name.len() <= 255)
    });
    if plain {
        return Ok(());
    }
    invalid(format!("{what} {path:?} is not an absolute path of plain names"))
}

/// True when one is the other or below it.
pub(crate) fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        for good in ["a", "0", "openclaw-2", &"a".repeat(40)] {
            assert!(check_sandbox_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a/b", "..", "a.b", "a b", "a\n", &"a".repeat(41)] {
            assert!(check_sandbox_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_plain_absolute_paths_pass() {
        for good in ["/a", "/a/b.c", "/.clawsec/init", "/a/..b"] {
            assert!(check_path("path", good).is_ok(), "{good}");
        }
        for bad in ["", "/", "a", "/a/", "//a", "/a//b", "/a/../b", "/./a", "/a\0b"] {
            assert!(check_path("path", bad).is_err(), "{bad}");
        }
    }
}
