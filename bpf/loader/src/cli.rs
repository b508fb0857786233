//! The command line and what the process's end means.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use clawsec_core::Without;

/// How the loader ends. The numbers are those of sysexits.h where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Stopped by a signal; nothing is left.
    Stopped,
    /// A mechanism that no sandbox can do without is missing.
    Unavailable,
    /// Something failed that should not.
    Internal,
    /// The runtime directory or the socket cannot be made.
    CannotCreate,
    /// Another loader serves this runtime directory.
    Busy,
    /// Not started as root.
    NotRoot,
}

impl Exit {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::Unavailable => 69,
            Self::Internal => 70,
            Self::CannotCreate => 73,
            Self::Busy => 75,
            Self::NotRoot => 77,
        }
    }
}

/// The native loader of clawsec: applies what the supervisor compiled, asks for the rest, and kills.
#[derive(Debug, Parser)]
#[command(
    name = "clawsec-loader",
    version,
    after_help = "It serves RUNTIME_DIR/loader.sock until SIGTERM, SIGINT or SIGHUP; then every sandbox is killed and cleaned up.\n\n\
Exit codes:\n   \
0  stopped by a signal, nothing is left (--probe-only: the mechanism is there)\n   \
2  the command line is wrong\n  \
69  a mechanism that no sandbox can do without is missing\n  \
70  an internal failure, or something survived the kill\n  \
73  the runtime directory or the socket cannot be made\n  \
75  another loader serves this runtime directory\n  \
77  not started as root"
)]
pub struct Options {
    /// Folder for the socket, the sandboxes and their network namespaces. Made if it does not exist.
    #[arg(long, value_name = "DIR", env = "CLAWSEC_RUNTIME_DIR", default_value = "/run/clawsec")]
    pub runtime_dir: PathBuf,

    /// The static init shim (clawsec-init) that is mounted into every sandbox.
    #[arg(long, value_name = "PATH", env = "CLAWSEC_SHIM", required_unless_present = "probe_only")]
    pub shim: Option<PathBuf>,

    /// Tries one mechanism of this host, prints what happened, and exits: 0 when it is there, 69 when not.
    #[arg(long, value_name = "NAME", value_enum)]
    pub probe_only: Option<Mechanism>,

    /// Group whose members may use the socket, by name or number. Whoever may use it is as good as root.
    #[arg(long, value_name = "GROUP")]
    pub socket_group: Option<String>,

    /// User who may use the socket beside root, by number.
    #[arg(long, value_name = "UID")]
    pub socket_uid: Option<u32>,

    /// Mechanisms of the kernel that are left unused, with commas between them, as if the kernel did not have them: to see
    /// how a lesser kernel behaves. Each has a stricter or slower one in its place; where there is none, the loader does not
    /// start, or a sandbox that needs it is refused. Nothing is permitted by it.
    #[arg(long, value_name = "FEATURE", value_enum, value_delimiter = ',', env = "CLAWSEC_WITHOUT")]
    pub without: Vec<Feature>,

    /// How log lines are written to standard error. RUST_LOG sets the levels.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// A mechanism that can be tried by itself, without BPF and without sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mechanism {
    /// A profile that denies an open.
    Apparmor,
    /// A ruleset that drops a datagram.
    Nftables,
}

impl Options {
    /// What `--without` means.
    pub fn without(&self) -> Without {
        let has = |feature| self.without.contains(&feature);
        Without {
            typed_tracepoints: has(Feature::TpBtf),
            raw_tracepoints: has(Feature::RawTp),
            wait_killable: has(Feature::WaitKillable),
            cgroup_memory: has(Feature::CgroupMemory),
            cgroup_pids: has(Feature::CgroupPids),
            cgroup_cpu: has(Feature::CgroupCpu),
        }
    }

    /// The names of `--without`, sorted, each once.
    pub fn without_names(&self) -> Vec<String> {
        let names = self.without.iter().filter_map(ValueEnum::to_possible_value);
        let names: BTreeSet<String> = names.map(|value| value.get_name().to_owned()).collect();
        names.into_iter().collect()
    }
}

/// A mechanism that can be left unused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Feature {
    /// Typed BPF tracepoints; raw ones are used.
    #[value(name = "tp_btf")]
    TpBtf,
    /// Raw BPF tracepoints. Without both kinds the loader does not start.
    #[value(name = "raw_tp")]
    RawTp,
    /// Calls that wait for their answer whatever signal comes.
    WaitKillable,
    /// The memory limit of cgroups. A sandbox is refused unless its policy waives it.
    #[value(name = "cgroup.memory")]
    CgroupMemory,
    /// The limit of processes of cgroups. A sandbox is refused unless its policy waives it.
    #[value(name = "cgroup.pids")]
    CgroupPids,
    /// The cpu limit of cgroups. A sandbox is refused unless its policy waives it.
    #[value(name = "cgroup.cpu")]
    CgroupCpu,
}

/// Format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn what_is_left_unused_is_told_by_the_names_that_said_so() {
        let line = ["clawsec-loader", "--shim", "/s", "--without", "wait-killable,cgroup.pids,tp_btf,tp_btf"];
        let options = Options::parse_from(line);
        assert_eq!(options.without_names(), ["cgroup.pids", "tp_btf", "wait-killable"]);
        let without =
            Without { typed_tracepoints: true, wait_killable: true, cgroup_pids: true, ..Without::NOTHING };
        assert_eq!(options.without(), without);
        assert!(Options::try_parse_from(["clawsec-loader", "--shim", "/s", "--without", "seccomp"]).is_err());
    }

    #[test]
    fn the_command_line_is_consistent_and_its_help_names_every_exit_code() {
        Options::command().debug_assert();
        let help = Options::command().render_long_help().to_string();
        for exit in
            [Exit::Stopped, Exit::Unavailable, Exit::Internal, Exit::CannotCreate, Exit::Busy, Exit::NotRoot]
        {
            let code = format!("{}  ", exit.code());
            assert!(help.lines().any(|line| line.trim_start().starts_with(&code)), "{code}");
        }
    }
}
