//! What this host can do, found by doing it in namespaces and a cgroup that end with the trial.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clawsec_core::{Scope, SubjectScope};
use clawsec_proto as pb;
use nix::sched::{CloneFlags, setns};

use crate::bpf::{Programs, Transport};
use crate::{netns, nftables};

/// An address of the documentation range, which no host has.
const ELSEWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 80);
/// What the child of a trial reports by when all went as it should (an error that no step gives).
const AS_EXPECTED: i32 = libc::ECANCELED;

/// Tries `netns.sk_lookup`, `cgroup.connect` and `nftables`. Blocks for some hundred milliseconds.
pub fn probe() -> Vec<pb::Capability> {
    vec![
        capability(
            "netns.sk_lookup",
            true,
            prove_steering(),
            "In a namespace with only lo, a connection to 192.0.2.1:80 reached the gate's listener, \
             and was refused when the gate was gone.",
            "Use Linux 5.9 or newer with CONFIG_BPF_SYSCALL and CONFIG_NET_NS, and run the loader as root.",
        ),
        capability(
            "cgroup.connect",
            true,
            prove_subjects(),
            "In a cgroup, a loopback port that was not opened gave EPERM, an open one did not, \
             and a connection was attributed to its process.",
            "Use Linux 5.18 or newer with CONFIG_CGROUP_BPF, mount cgroup v2, and run the loader as root.",
        ),
        probe_nftables(),
    ]
}

/// Tries `nftables` alone. A sandbox whose policy waives it runs without.
pub fn probe_nftables() -> pb::Capability {
    capability(
        "nftables",
        false,
        nftables::prove(),
        "In a namespace, a datagram that went through was refused after a ruleset with the policy drop was applied, \
             and one that it accepts was not.",
        "Install nftables (nft, with JSON) and use a kernel with CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET.",
    )
}

fn capability(
    name: &str,
    required: bool,
    proof: io::Result<()>,
    detail: &str,
    remedy: &str,
) -> pb::Capability {
    let (state, detail, remedy) = match proof {
        Ok(()) => (pb::CapabilityState::Present, detail.to_owned(), ""),
        Err(error) => (pb::CapabilityState::Missing, format!("The trial failed: {error}."), remedy),
    };
    pb::Capability {
        name: name.into(),
        state: state.into(),
        detail,
        remedy: remedy.into(),
        required,
        ..Default::default()
    }
}

/// A scratch namespace: its file lives in a folder that only we use.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new(what: &str) -> io::Result<Self> {
        let name = format!("clawsec-probe-{what}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        netns::create(&path).map_err(io::Error::other)?;
        Ok(Self { path })
    }

    fn open(&self) -> io::Result<File> {
        netns::open(&self.path).map_err(io::Error::other)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind is an empty namespace in the folder for temporary files.
        let _ = netns::remove(&self.path);
    }
}

fn prove_steering() -> io::Result<()> {
    let scratch = Scratch::new("steer")?;
    let netns = scratch.open()?;
    let listener = netns::inside(&netns, || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    let connect = || netns::inside(&netns, || TcpStream::connect(ELSEWHERE));
    let mut programs = Programs::load().map_err(io::Error::other)?;
    programs.steer(&netns, listener.as_fd()).map_err(io::Error::other)?;
    let client = connect()?;
    let (accepted, _) = listener.accept()?;
    if accepted.local_addr()? != SocketAddr::V4(ELSEWHERE) {
        return Err(io::Error::other("the accepted socket does not have the dialled address"));
    }
    drop((client, accepted));
    programs.stop_steering();
    match connect() {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("a connection was made although the gate was gone")),
    }
}

/// A scratch cgroup.
struct ScratchCgroup(PathBuf);

impl Drop for ScratchCgroup {
    fn drop(&mut self) {
        // The trial's child is gone, so it is empty.
        let _ = fs::remove_dir(&self.0);
    }
}

fn prove_subjects() -> io::Result<()> {
    let mount = cgroup2_mount()?;
    let cgroup = ScratchCgroup(mount.join(format!("clawsec-probe-{}", std::process::id())));
    fs::create_dir(&cgroup.0)?;
    let scratch = Scratch::new("cgroup")?;
    let netns = scratch.open()?;
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (gate, open, shut) = netns::inside(&netns, || Ok((bind()?, bind()?, bind()?)))?;
    let (open_port, shut_port) = (open.local_addr()?.port(), shut.local_addr()?.port());

    let subject = SubjectScope {
        name: "probe".into(),
        cgroup: cgroup.0.clone(),
        cgroup_id: fs::metadata(&cgroup.0)?.ino(),
    };
    let id = subject.cgroup_id;
    let scope = Scope { sandbox: "probe".into(), subjects: vec![subject] };
    let rights =
        pb::Subject { name: "probe".into(), loopback_ports: vec![open_port.into()], ..Default::default() };
    let mut programs = Programs::load().map_err(io::Error::other)?;
    programs.attach_subjects(&scope, &[rights]).map_err(io::Error::other)?;
    programs.steer(&netns, gate.as_fd()).map_err(io::Error::other)?;

    let result = in_child(&cgroup.0, &netns, move || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, open_port))?;
        match TcpStream::connect((Ipv4Addr::LOCALHOST, shut_port)) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(io::Error::from_raw_os_error(libc::EISCONN)),
        }
        TcpStream::connect(ELSEWHERE).map(drop)
    });
    result?;
    let (_, peer) = gate.accept()?;
    let SocketAddr::V4(peer) = peer else { return Err(io::Error::other("the peer is not IPv4")) };
    match programs.take_origin(Transport::Tcp, peer, ELSEWHERE) {
        Some(origin) if origin.cgroup == id => Ok(()),
        _ => Err(io::Error::other("a connection could not be attributed to its cgroup")),
    }
}

/// Runs `work` in a child process that is in this cgroup and namespace.
fn in_child(
    cgroup: &Path,
    netns: &File,
    work: impl Fn() -> io::Result<()> + Send + Sync + 'static,
) -> io::Result<()> {
    let procs = File::options().write(true).open(cgroup.join("cgroup.procs"))?;
    let netns = netns.try_clone()?;
    let mut command = Command::new("/proc/self/exe");
    // SAFETY: the closure runs in the child between fork and exec. It makes system calls only: writing to an open
    // descriptor, setns, socket, connect and close on the stack's data, none of which takes a lock or allocates.
    unsafe {
        command.pre_exec(move || {
            (&procs).write_all(b"0")?;
            setns(&netns, CloneFlags::CLONE_NEWNET)?;
            work()?;
            // Nothing is ever executed: the child ends here, and spawn() returns this error.
            Err(io::Error::from_raw_os_error(AS_EXPECTED))
        });
    }
    match command.spawn() {
        Err(error) if error.raw_os_error() == Some(AS_EXPECTED) => Ok(()),
        Err(error) => Err(error),
        Ok(mut child) => {
            child.wait()?;
            Err(io::Error::other("the trial's child ran on"))
        }
    }
}

/// Where cgroup v2 is mounted (proc_pid_mountinfo(5)).
fn cgroup2_mount() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    mounts
        .lines()
        .filter_map(|line| line.split_once(" - "))
        .find(|(_, right)| right.starts_with("cgroup2 "))
        .and_then(|(left, _)| left.split(' ').nth(4))
        .map(PathBuf::from)
        .ok_or_else(|| io::Error::other("cgroup v2 is not mounted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_all_that_the_gate_needs_and_the_trial_leaves_nothing() {
        for capability in probe() {
            assert_eq!(capability.state(), pb::CapabilityState::Present, "{capability:?}");
        }
        let id = std::process::id();
        let mount = cgroup2_mount().expect("cgroup v2");
        assert!(!mount.join(format!("clawsec-probe-{id}")).exists());
        assert!(!std::env::temp_dir().join(format!("clawsec-probe-steer-{id}")).exists());
        assert!(!std::env::temp_dir().join(format!("clawsec-probe-cgroup-{id}")).exists());
    }
}
