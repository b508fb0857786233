//! The second layer inside a sandbox's network namespace: the policy's nftables ruleset.
//!
//! The rules are the kernel's, and hold whatever becomes of the gate. They go with the namespace.

use std::io::{self, Read, Write};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

use crate::netns;
use crate::sandbox::{NetError, io_error};

/// nft takes some 5 ms; this is for a host that is very busy.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest ruleset in bytes: what a pipe takes at once, so that writing it cannot wait for nft.
const LARGEST: usize = 64 * 1024;

/// A ruleset that is being applied, beside whatever else a start has to do.
#[derive(Debug)]
pub struct Ruleset {
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Ruleset {
    /// Has `nft -j -f -` apply a libnftables-json(5) document in the namespace at `netns`. Returns at once.
    ///
    /// # Errors
    /// The namespace or the thread.
    pub(crate) fn apply(netns: &Path, json: Vec<u8>) -> Result<Self, NetError> {
        let netns = netns::open(netns)?;
        let thread = std::thread::Builder::new().name("clawsec-nft".into()).spawn(move || {
            nix::sched::setns(&netns, CloneFlags::CLONE_NEWNET)?;
            load(&json)
        });
        Ok(Self { thread: Some(thread.map_err(io_error("nftables: the thread for its ruleset"))?) })
    }

    /// Waits until the rules are in force. Blocks for at most some seconds.
    ///
    /// # Errors
    /// With nft's own words. The sandbox must not run.
    pub fn in_force(mut self) -> Result<(), NetError> {
        self.wait().map_err(io_error("nftables: the policy's ruleset is not in force"))
    }

    fn wait(&mut self) -> io::Result<()> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(applied)) => applied,
            Some(Err(_)) | None => Err(io::Error::other("the thread for nft panicked")),
        }
    }
}

impl Drop for Ruleset {
    fn drop(&mut self) {
        if self.thread.is_some() {
            // Whoever drops it takes the sandbox down; nothing must be left of it then.
            let _ = self.wait();
        }
    }
}

/// Applies a document in the calling thread's namespace, which the child inherits.
fn load(json: &[u8]) -> io::Result<()> {
    if json.len() > LARGEST {
        return Err(io::Error::other(format!("it has {} bytes, and {LARGEST} are the most", json.len())));
    }
    has_commands(json)?;
    let mut child = Command::new("nft")
        .args(["-j", "-f", "-"])
        // What nft does must not depend on who started the loader.
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::other(format!("nft cannot be run ({error}); install nftables")))?;
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(json));
    let status = wait(&mut child)?;
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said)?;
    }
    match said.trim().replace('\n', "; ") {
        _ if status.success() => written,
        said if said.is_empty() => Err(io::Error::other(format!("nft failed without a word ({status})"))),
        said => Err(io::Error::other(format!("nft refused it: {said}"))),
    }
}

/// nft ends well, having done nothing, for a document without commands, and for what is no JSON at all (1.0.6).
fn has_commands(json: &[u8]) -> io::Result<()> {
    let document: serde_json::Value =
        serde_json::from_slice(json).map_err(|error| io::Error::other(format!("it is not JSON: {error}")))?;
    match document.get("nftables").and_then(serde_json::Value::as_array) {
        Some(commands) if !commands.is_empty() => Ok(()),
        _ => Err(io::Error::other("it has no commands")),
    }
}

fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if begin.elapsed() > TIMEOUT {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::other(format!("nft did not end within {} s", TIMEOUT.as_secs())));
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Whether a ruleset really drops: the same datagram before and after, and one that is accepted, in a namespace that
/// ends with the trial.
pub(crate) fn prove() -> io::Result<()> {
    netns::on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        netns::bring_up_loopback()?;
        let bind = || -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            Ok(socket)
        };
        let (open, shut, sender) = (bind()?, bind()?, bind()?);
        let pass = |receiver: &UdpSocket| {
            sender.send_to(b"x", receiver.local_addr()?)?;
            receiver.recv(&mut [0; 1]).map(drop)
        };
        pass(&open)?;
        pass(&shut)?;
        load(trial(open.local_addr()?.port()).as_bytes())?;
        pass(&open)?;
        match pass(&shut) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            Err(error) => Err(error),
            Ok(()) => Err(io::Error::other("a datagram that the ruleset drops arrived")),
        }
    })
}

/// A table with one chain that drops all output but datagrams to one port.
fn trial(port: u16) -> String {
    format!(
        r#"{{"nftables": [
        {{"add": {{"table": {{"family": "inet", "name": "trial"}}}}}},
        {{"add": {{"chain": {{"family": "inet", "table": "trial", "name": "output", "type": "filter",
            "hook": "output", "prio": 0, "policy": "drop"}}}}}},
        {{"add": {{"rule": {{"family": "inet", "table": "trial", "chain": "output", "expr": [
            {{"match": {{"op": "==", "left": {{"payload": {{"protocol": "udp", "field": "dport"}}}},
                "right": {port}}}}},
            {{"accept": null}}]}}}}}}]}}"#
    )
}
