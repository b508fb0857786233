//! A small world for the gate's tests: a namespace that stands for the host, one that stands for the rest of the
//! network, and a sandbox with two subjects. All of it ends with the test; nothing reaches the real network.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod http;
pub mod net;
pub mod play;
pub mod servers;

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use clawsec_core::{Scope, SubjectScope, pb};
use clawsec_net_gate::{NetGate, SandboxNet};
use play::{Events, Script};
use tokio::runtime::Runtime;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Host, network and sandbox.
pub struct World {
    pub gate: NetGate,
    pub net: Option<SandboxNet>,
    pub events: Arc<Events>,
    pub script: Arc<Script>,
    pub runtime: Runtime,
    pub scope: Scope,
    pub netns: PathBuf,
    pub folder: tempfile::TempDir,
    top: PathBuf,
    network: Option<net::Network>,
}

/// Runs a test in a new world. `hosts` of the table are the servers' (see [`servers`]) unless the test gives others.
pub fn world(table: pb::NetworkTable, test: impl FnOnce(&mut World) + Send + 'static) {
    world_with(table, subjects(), test);
}

/// As [`world`], with other rights of the subjects.
pub fn world_with(
    table: pb::NetworkTable,
    subjects: Vec<pb::Subject>,
    test: impl FnOnce(&mut World) + Send + 'static,
) {
    // A thread of its own: its namespace, and that of all its children, is the "host's".
    let thread = std::thread::spawn(move || {
        let network = net::Network::new();
        let mut world = World::new(network, &table, &subjects);
        test(&mut world);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The subjects of the tests: `gateway` may reach all loopback ports, `tool` none.
pub fn subjects() -> Vec<pb::Subject> {
    vec![
        pb::Subject { name: "gateway".into(), loopback_any: true, ..Default::default() },
        pb::Subject { name: "tool".into(), ..Default::default() },
    ]
}

/// A row about a name.
pub fn row(rule: &str, host: &str, verdict: pb::Verdict) -> pb::NetworkRow {
    pb::NetworkRow {
        rule: rule.into(),
        host: host.into(),
        verdict: verdict.into(),
        message: format!("{rule} says so"),
        ..Default::default()
    }
}

/// A row about addresses.
pub fn range(rule: &str, cidr: &str, verdict: pb::Verdict) -> pb::NetworkRow {
    pb::NetworkRow { cidr: cidr.into(), host: String::new(), ..row(rule, "", verdict) }
}

/// A table with these rows that denies by default, and gives names to the servers.
pub fn table(rows: Vec<pb::NetworkRow>) -> pb::NetworkTable {
    let hosts = servers::NAMES.iter().map(|(name, address)| ((*name).into(), (*address).into())).collect();
    pb::NetworkTable {
        rows,
        hosts,
        default_verdict: pb::Verdict::Deny.into(),
        default_rule: "default".into(),
    }
}

impl World {
    fn new(network: net::Network, table: &pb::NetworkTable, subjects: &[pb::Subject]) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("net-test-{}-{number}", std::process::id());
        let top = net::cgroup2_mount().join(&name);
        let scopes = subjects.iter().map(|subject| {
            let cgroup = top.join(&subject.name);
            fs::create_dir_all(&cgroup).unwrap();
            let cgroup_id = fs::metadata(&cgroup).unwrap().ino();
            SubjectScope { name: subject.name.clone(), cgroup, cgroup_id }
        });
        let scope = Scope { sandbox: name, subjects: scopes.collect() };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (events, script) = (Arc::new(Events::default()), Arc::new(Script::default()));
        let gate = NetGate::new(script.clone(), events.clone(), runtime.handle().clone());
        let folder = tempfile::tempdir().unwrap();
        let netns = folder.path().join("netns");
        gate.create_netns(&netns).unwrap();
        let ruleset = gate.apply_ruleset(&netns, net::RULESET.into()).unwrap();
        let net = gate.attach(&scope, subjects, &netns, table, 1).unwrap();
        ruleset.in_force().unwrap();
        let network = Some(network);
        Self { gate, net: Some(net), events, script, runtime, scope, netns, folder, top, network }
    }

    pub fn net(&self) -> &SandboxNet {
        self.net.as_ref().unwrap()
    }

    /// Waits until `ready` gives something. Panics after 10 s.
    pub fn until<T>(&self, what: &str, ready: impl FnMut() -> Option<T>) -> T {
        until(what, ready)
    }

    /// The only decision event for this host or address so far, waited for.
    pub fn decision(&self, destination: &str) -> (pb::Event, pb::DecisionEvent) {
        until(&format!("a decision about {destination}"), || {
            self.events.decisions().into_iter().find(|(_, decision)| match &decision.action {
                Some(pb::decision_event::Action::Network(action)) => {
                    action.host == destination || action.address == destination
                }
                _ => false,
            })
        })
    }
}

/// Waits until `ready` gives something. Panics after 10 s.
pub fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{what}: not within 10 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The one network action of a decision.
pub fn action(decision: &pb::DecisionEvent) -> &pb::NetworkAction {
    match &decision.action {
        Some(pb::decision_event::Action::Network(action)) => action,
        other => panic!("not about the network: {other:?}"),
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.net.take());
        net::empty_cgroups(&self.top);
        drop(self.network.take());
    }
}
