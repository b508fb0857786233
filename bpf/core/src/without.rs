//! Mechanisms of the kernel that are left unused.

/// What to do without although the kernel may have it: each has a lesser one in its place, or none, which then is an
/// error. Nothing is permitted by it that is not permitted with everything in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Without {
    /// Typed tracepoints (`tp_btf`) for the verification of execs; raw ones are used.
    pub typed_tracepoints: bool,
    /// Raw tracepoints (`raw_tp`). Without both kinds no exec can be verified.
    pub raw_tracepoints: bool,
    /// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`; a signal interrupts a system call that waits for its answer.
    pub wait_killable: bool,
    /// The memory controller of cgroups. Nothing takes its place: a sandbox with that limit is refused.
    pub cgroup_memory: bool,
    /// The pids controller, likewise.
    pub cgroup_pids: bool,
    /// The cpu controller, likewise.
    pub cgroup_cpu: bool,
}

impl Without {
    /// Everything that the kernel has is used.
    pub const NOTHING: Self = Self {
        typed_tracepoints: false,
        raw_tracepoints: false,
        wait_killable: false,
        cgroup_memory: false,
        cgroup_pids: false,
        cgroup_cpu: false,
    };
}
