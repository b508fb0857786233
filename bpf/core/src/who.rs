//! Who asks: from a host pid to the subject and the facts about the process.

use crate::{Scope, SubjectScope};
use clawsec_proto as pb;
use std::fs;
use std::path::Path;

/// Describes the process behind a host pid. The exec gate's implementation also knows exec ids and ancestors.
pub trait Describe: Send + Sync + 'static {
    /// Facts about a live process; fields that cannot be read stay empty. Nothing is decided by them.
    fn describe(&self, pid: i32) -> pb::Process;
}

/// What /proc tells, without exec ids.
#[derive(Debug, Default, Clone, Copy)]
pub struct FromProc;

impl Describe for FromProc {
    fn describe(&self, pid: i32) -> pb::Process {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").trim();
        let first =
            |name: &str| field(name).split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
        pb::Process {
            pid: u32::try_from(pid).unwrap_or(0),
            sandbox_pid: field("NSpid:").split_whitespace().last().and_then(|n| n.parse().ok()).unwrap_or(0),
            uid: first("Uid:"),
            gid: first("Gid:"),
            executable: fs::read_link(format!("/proc/{pid}/exe"))
                .map(|path| path.to_string_lossy().into_owned())
                .unwrap_or_default(),
            comm: field("Name:").to_owned(),
            ..Default::default()
        }
    }
}

/// The subject whose cgroup (v2) the process is in, from the `0::` line of /proc/PID/cgroup (cgroups(7)).
///
/// `None` when the process is in no cgroup of the scope: the caller denies.
pub fn subject_of(scope: &Scope, pid: i32) -> Option<&SubjectScope> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/');
    scope.subjects.iter().find(|subject| is_tail(&subject.cgroup, path))
}

/// True when the cgroup folder is the mount point of the hierarchy plus `path`. A descendant is not the subject:
/// nothing in a sandbox can make one.
fn is_tail(folder: &Path, path: &str) -> bool {
    !path.is_empty() && folder.ends_with(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_path_matches_whole_components_only() {
        let folder = Path::new("/sys/fs/cgroup/unified/clawsec-1/box/tool");
        assert!(is_tail(folder, "clawsec-1/box/tool"));
        assert!(!is_tail(folder, "lawsec-1/box/tool"));
        assert!(!is_tail(folder, "clawsec-1/box"));
        assert!(!is_tail(folder, ""));
    }
}
