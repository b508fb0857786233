//! Which processes belong to which sandbox and subject.

use std::path::PathBuf;

/// The processes of one sandbox, by cgroup (v2).
#[derive(Debug, Clone)]
pub struct Scope {
    /// Name of the sandbox.
    pub sandbox: String,
    /// In the order of the policy; the first is the subject of the main command.
    pub subjects: Vec<SubjectScope>,
}

/// The cgroup of one subject.
#[derive(Debug, Clone)]
pub struct SubjectScope {
    /// Name of the subject.
    pub name: String,
    /// Folder of the cgroup in the v2 hierarchy.
    pub cgroup: PathBuf,
    /// Id of the cgroup, as `bpf_get_current_cgroup_id()` gives it: the inode number of the folder.
    pub cgroup_id: u64,
}

impl Scope {
    /// The subject with this cgroup id.
    pub fn subject_of(&self, cgroup_id: u64) -> Option<&SubjectScope> {
        self.subjects.iter().find(|subject| subject.cgroup_id == cgroup_id)
    }

    /// The subject with this name.
    pub fn subject(&self, name: &str) -> Option<&SubjectScope> {
        self.subjects.iter().find(|subject| subject.name == name)
    }
}
