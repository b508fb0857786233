//! Removing every trace of a sandbox: after its end, after a failed start, and after a loader that crashed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};

use crate::apparmor;
use crate::cgroup::Cgroups;
use crate::error::{Context, Error, Result};
use crate::layout::{Layout, check_sandbox_name};
use crate::runc::Runc;

/// How long killed processes may take to go.
pub const GONE_TIMEOUT: Duration = Duration::from_secs(10);

/// What sweeping needs.
#[derive(Debug, Clone)]
pub struct Sweeper {
    pub layout: Layout,
    pub cgroups: Cgroups,
    pub runc: Runc,
}

impl Sweeper {
    /// Names of all sandboxes of which anything is left: folders, runc's state, network namespaces, cgroups,
    /// AppArmor profiles.
    pub fn remains(&self) -> BTreeSet<String> {
        let listed = |folder: PathBuf| {
            fs::read_dir(folder)
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .collect::<Vec<_>>()
        };
        let mut names: BTreeSet<String> = listed(self.layout.sandboxes()).into_iter().collect();
        names.extend(listed(self.layout.netns_folder()));
        names.extend(self.runc.known());
        names.extend(self.cgroups.sandboxes());
        names.extend(apparmor::sandboxes());
        // What cannot be a sandbox of ours is not ours to remove.
        names.retain(|name| check_sandbox_name(name).is_ok());
        names
    }

    /// Kills and removes everything of a sandbox. Returns a sentence for each thing that was found; goes on after an
    /// error, which is a sentence too.
    pub async fn sweep(&self, name: &str) -> Vec<String> {
        let mut said = Vec::new();
        self.kill(name, &mut said).await;
        let known = self.runc.known().iter().any(|known| known == name);
        match self.runc.delete(name).await {
            Ok(()) if known => said.push(format!("runc's container {name} was deleted")),
            Ok(()) => {}
            Err(error) => {
                said.push(format!("{error}"));
                // What runc cannot read, it cannot use either; the processes are gone already.
                let _ = fs::remove_dir_all(self.layout.runc().join(name));
            }
        }
        let this = self.clone();
        let owned = name.to_owned();
        let removed = tokio::task::spawn_blocking(move || this.remove_files(&owned)).await;
        said.extend(removed.unwrap_or_else(|error| vec![format!("removing the files of {name}: {error}")]));
        said
    }

    /// Removes the loader's own cgroup folders where they are empty.
    pub fn remove_parents(&self) {
        self.cgroups.remove_parents();
    }

    async fn kill(&self, name: &str, said: &mut Vec<String>) {
        let processes = self.cgroups.processes(name).len();
        if let Err(error) = self.cgroups.kill(name) {
            said.push(error.to_string());
        }
        let in_v1 = self.cgroups.kill_v1(name);
        if processes.max(in_v1) == 0 {
            return;
        }
        let (cgroups, owned) = (self.cgroups.clone(), name.to_owned());
        let empty = tokio::task::spawn_blocking(move || cgroups.wait_empty(&owned, GONE_TIMEOUT)).await;
        said.push(if empty.unwrap_or(false) {
            format!("{} processes of {name} were killed", processes.max(in_v1))
        } else {
            format!("processes of {name} survived SIGKILL: {:?}", self.cgroups.processes(name))
        });
    }

    fn remove_files(&self, name: &str) -> Vec<String> {
        let mut said = Vec::new();
        let mut note = |what: String, result: Result<bool>| match result {
            Ok(true) => said.push(format!("{what} was removed")),
            Ok(false) => {}
            Err(error) => said.push(format!("{what} could not be removed: {error}")),
        };
        note(format!("the network namespace {name}"), remove_mount_point(&self.layout.netns(name)));
        note(format!("the folder of {name}"), remove_folder(&self.layout.sandbox(name)));
        let had = self.cgroups.sandboxes().iter().any(|known| known == name);
        note(format!("the cgroup of {name}"), self.cgroups.remove(name).map(|()| had));
        note(format!("the AppArmor profile of {name}"), apparmor::remove(name));
        said
    }
}

fn remove_mount_point(path: &Path) -> Result<bool> {
    for mount in mounts_below(path)? {
        unmount(&mount, UnmountFlags::DETACH).context(format_args!("unmounting {mount:?}"))?;
    }
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::Failed(error.to_string())),
    }
}

fn remove_folder(path: &Path) -> Result<bool> {
    for mount in mounts_below(path)? {
        unmount(&mount, UnmountFlags::DETACH).context(format_args!("unmounting {mount:?}"))?;
    }
    // Through a mount that is still there, removing would reach into the host's own files.
    if let Some(mount) = mounts_below(path)?.first() {
        return Err(Error::Failed(format!("{mount:?} is still mounted")));
    }
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::Failed(error.to_string())),
    }
}

/// Mounts at or below a path in our mount namespace, innermost first.
fn mounts_below(path: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    let mut mounts: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|escaped| PathBuf::from(unescape(escaped)))
        .filter(|mount| mount.starts_with(path))
        .collect();
    mounts.reverse();
    Ok(mounts)
}

/// mountinfo writes space, tab, newline and backslash in octal (proc(5)).
fn unescape(escaped: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(escaped.to_owned(), |text, (code, plain)| text.replace(code, plain))
}
