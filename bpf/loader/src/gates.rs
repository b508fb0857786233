//! The three gates, wired into the life of a sandbox.
//!
//! Order is what matters here. The policy record comes first, so that whatever asks has an epoch. Then the sandbox's
//! cgroups are verified while they are empty, and its network leads nowhere but to the gate. Only then is there a
//! process. At the end it is the other way round: the record goes last, when nothing is left that could ask.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use clawsec_core::who::{Describe, FromProc};
use clawsec_core::{EventSink, Scope, Without};
use clawsec_exec_gate::{ExecGate, ExecPolicy, TableError, notify::Serving};
use clawsec_file_gate::{FileGate, SandboxFiles};
use clawsec_net_gate::{NetGate, Ruleset, SandboxNet};
use clawsec_proto as pb;
use clawsec_sandbox::{Error, Hooks, Network};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tonic::Status;

use crate::bpffs;
use crate::broker::Broker;
use crate::tables::{PolicyRecord, SwapError, Tables};

/// The gates of this loader.
pub struct Gates {
    inner: Arc<Inner>,
}

struct Inner {
    exec: Arc<ExecGate>,
    net: NetGate,
    files: FileGate,
    tables: Arc<Tables>,
    broker: Broker,
    pins: PathBuf,
    netns_dir: PathBuf,
    without: Without,
    held: Mutex<HashMap<String, Held>>,
}

/// What is held for one sandbox. Dropped when nothing of it is left.
#[derive(Default)]
struct Held {
    net: Option<Arc<SandboxNet>>,
    /// Begun with the network namespace, and waited for before anything runs: it costs a start nothing.
    ruleset: Option<Ruleset>,
    serving: Option<Serving>,
    files: Option<SandboxFiles>,
    guards: Vec<pb::FileGuard>,
}

/// Why a policy was not put in force.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The sandbox or the epoch.
    #[error(transparent)]
    Swap(#[from] SwapError),
    /// The network gate did not take its table.
    #[error(transparent)]
    Network(#[from] clawsec_net_gate::NetError),
    /// The exec gate did not take its table.
    #[error(transparent)]
    Exec(#[from] TableError),
    /// The exec gate does not know the sandbox.
    #[error(transparent)]
    Gate(#[from] clawsec_exec_gate::Error),
    /// Marks are on mounts, and mounts are made once.
    #[error(
        "the file guards of a sandbox cannot change while it lives: stop it and start it under the new policy"
    )]
    FileGuards,
}

impl ApplyError {
    /// For the caller.
    pub fn status(&self) -> Status {
        let sentence = self.to_string();
        match self {
            Self::Swap(SwapError::Unknown(_)) => Status::not_found(sentence),
            Self::Swap(SwapError::Stale { .. }) | Self::FileGuards => Status::failed_precondition(sentence),
            Self::Network(_) | Self::Exec(_) => Status::invalid_argument(sentence),
            Self::Gate(_) => Status::internal(sentence),
        }
    }
}

/// Facts about an asking process, with the exec gate's lineage.
struct Lineage(Arc<ExecGate>);

impl Describe for Lineage {
    fn describe(&self, pid: i32) -> pb::Process {
        let mut process = FromProc.describe(pid);
        self.0.describe(pid, &mut process);
        process
    }
}

impl Gates {
    /// Loads the programs that all sandboxes share. To be called from the runtime.
    ///
    /// # Errors
    /// A sentence.
    pub fn load(
        instance: &str,
        runtime_dir: &Path,
        tables: Arc<Tables>,
        broker: Broker,
        events: Arc<dyn EventSink>,
        without: Without,
    ) -> Result<Self, String> {
        let pins = bpffs::pin_dir(instance).map_err(|error| {
            format!("no bpf file system for the pins: {error}; mount one: mount -t bpf bpf /sys/fs/bpf")
        })?;
        let asker = Arc::new(broker.clone());
        let layers = clawsec_exec_gate::layers(without);
        let ask = Arc::clone(&asker) as _;
        let exec = ExecGate::load(&pins, layers, without, ask, events, Handle::current());
        let exec = exec.map_err(|error| error.to_string())?;
        let events = exec.events();
        let net = NetGate::new(Arc::clone(&asker) as _, Arc::clone(&events), Handle::current());
        let describe = Arc::new(Lineage(Arc::clone(&exec)));
        let inner = Inner {
            exec,
            net,
            files: FileGate::new(asker, events, describe),
            tables,
            broker,
            pins,
            netns_dir: runtime_dir.join("netns"),
            without,
            held: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Mechanisms of the kernel that are left unused.
    pub fn without(&self) -> Without {
        self.inner.without
    }

    /// What the gates can enforce here. Blocks for some hundred milliseconds.
    pub fn probe(&self) -> Vec<pb::Capability> {
        let mut capabilities = clawsec_exec_gate::probe(self.inner.without);
        capabilities.extend(clawsec_net_gate::probe());
        capabilities.push(clawsec_file_gate::probe());
        capabilities
    }

    /// Puts other tables in force: all of them, or none.
    ///
    /// The network table goes in twice. The first time it is checked and takes effect; then the epoch is raised, which
    /// voids what was answered before; the second time ends connections that an old answer let through in between.
    /// The exec table is not used before its epoch. Blocks while the tables are compiled.
    ///
    /// # Errors
    /// The policy that was in force stays.
    pub fn apply(&self, sandbox: &str, tables: &pb::PolicyTables) -> Result<(), ApplyError> {
        let net = {
            let held = self.inner.lock();
            let known = held.get(sandbox).ok_or_else(|| SwapError::Unknown(sandbox.to_owned()))?;
            if known.guards != sorted(&tables.file_guards) {
                return Err(ApplyError::FileGuards);
            }
            known.net.clone().ok_or_else(|| SwapError::Unknown(sandbox.to_owned()))?
        };
        let network = tables.network.clone().unwrap_or_default();
        let exec = ExecPolicy::compile(tables)?;
        self.inner.tables.swap::<ApplyError>(sandbox, tables.epoch, &tables.policy_hash, || {
            net.apply(&network, tables.epoch)?;
            self.inner.exec.apply(sandbox, exec)?;
            Ok(())
        })?;
        net.apply(&network, tables.epoch)?;
        Ok(())
    }

    /// Where to report what belongs between what the gates report.
    pub fn events(&self) -> Arc<dyn EventSink> {
        self.inner.exec.events()
    }

    /// Returns when everything so far was told. Blocks for some milliseconds.
    pub fn settle(&self) {
        self.inner.exec.settle();
    }

    /// Images that could not be killed although nobody approved them. Anything but 0 is an emergency.
    pub fn unkilled(&self) -> u64 {
        self.inner.exec.counters().kill_failed
    }

    /// Ends the verification of execs with this process. Only when no sandbox is left.
    pub fn unload(&self) {
        let unpinned = self.inner.exec.unpin().map_err(|error| error.to_string());
        let removed = unpinned.and_then(|()| {
            std::fs::remove_dir(&self.inner.pins).map_err(|error| format!("{:?}: {error}", self.inner.pins))
        });
        if let Err(why) = removed {
            tracing::error!("the pins of the exec verification stay: {why}");
        }
    }
}

/// Guards in an order that does not depend on how they were written.
fn sorted(guards: &[pb::FileGuard]) -> Vec<pb::FileGuard> {
    let mut guards = guards.to_vec();
    guards.sort_by(|a, b| a.path.cmp(&b.path).then(a.open.cmp(&b.open)).then(a.names.cmp(&b.names)));
    guards
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Failed(error.to_string())
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, sandbox: &str, change: impl FnOnce(&mut Held)) {
        change(self.lock().entry(sandbox.to_owned()).or_default());
    }

    fn prepare(&self, scope: &Scope, request: &pb::CreateSandboxRequest) -> Result<Network, Error> {
        let name = &scope.sandbox;
        let tables = request.tables.as_ref();
        let tables = tables.ok_or_else(|| Error::Invalid("the policy tables are missing".into()))?;
        let exec = ExecPolicy::compile(tables).map_err(|error| Error::Invalid(error.to_string()))?;
        let record = PolicyRecord {
            epoch: tables.epoch,
            hash: tables.policy_hash.clone(),
            supervisor_grace_ms: request.supervisor_grace_ms,
        };
        self.tables.insert(name, record);
        self.hold(name, |held| held.guards = sorted(&tables.file_guards));
        self.exec.add_scope(scope).map_err(failed)?;
        self.exec.apply(name, exec).map_err(failed)?;

        let netns = self.netns_dir.join(name);
        let table = tables.network.clone().unwrap_or_default();
        self.net.create_netns(&netns).map_err(failed)?;
        if !request.nftables.is_empty() {
            let ruleset = self.net.apply_ruleset(&netns, request.nftables.clone()).map_err(failed)?;
            self.hold(name, |held| held.ruleset = Some(ruleset));
        }
        let net = self.net.attach(scope, &request.subjects, &netns, &table, tables.epoch).map_err(failed)?;
        let net = Arc::new(net);
        self.hold(name, |held| held.net = Some(Arc::clone(&net)));
        let mut publish = request.publish.clone();
        for port in &mut publish {
            port.host_port = net.publish(port).map_err(failed)?.into();
        }
        Ok(Network { netns, publish })
    }
}

#[async_trait]
impl Hooks for Gates {
    async fn prepare(&self, scope: &Scope, request: &pb::CreateSandboxRequest) -> Result<Network, Error> {
        let inner = Arc::clone(&self.inner);
        let (scope, mut request) = (scope.clone(), request.clone());
        // Not needed here, and large.
        (request.oci_config, request.rootfs, request.secrets) = (Vec::new(), Vec::new(), Vec::new());
        spawn_blocking(move || inner.prepare(&scope, &request)).await.map_err(failed)?
    }

    async fn created(&self, scope: &Scope, init_pid: u32) -> Result<Option<OwnedFd>, Error> {
        let guards = self.inner.lock().get(&scope.sandbox).map(|held| held.guards.clone());
        let pid = i32::try_from(init_pid).map_err(failed)?;
        if !self.inner.exec.guard_namespace(&scope.sandbox, pid).map_err(failed)? {
            tracing::debug!(sandbox = scope.sandbox, "execs are verified by cgroup alone");
        }
        let files = self.inner.files.attach(scope, pid, &guards.unwrap_or_default()).map_err(failed)?;
        let keeper = files.as_ref().map(SandboxFiles::keeper).transpose().map_err(failed)?;
        self.inner.hold(&scope.sandbox, |held| held.files = files);
        let ruleset = self.inner.lock().get_mut(&scope.sandbox).and_then(|held| held.ruleset.take());
        if let Some(ruleset) = ruleset {
            spawn_blocking(move || ruleset.in_force()).await.map_err(failed)?.map_err(failed)?;
        }
        Ok(keeper)
    }

    async fn approve_shim(
        &self,
        _scope: &Scope,
        init_pid: u32,
        shim: &File,
        argv: &[&str],
    ) -> Result<(), Error> {
        let pid = i32::try_from(init_pid).map_err(failed)?;
        let argv: Vec<Vec<u8>> = argv.iter().map(|argument| argument.as_bytes().to_vec()).collect();
        self.inner.exec.approve_once(pid, shim.as_fd(), &argv).map_err(failed)
    }

    async fn listener_ready(&self, scope: &Scope, _init_pid: u32, listener: OwnedFd) -> Result<(), Error> {
        let serving = self.inner.exec.serve(&scope.sandbox, listener, HashMap::new()).map_err(failed)?;
        self.inner.hold(&scope.sandbox, |held| held.serving = Some(serving));
        Ok(())
    }

    async fn network_cut(&self, sandbox: &str) {
        let net = self.inner.lock().get(sandbox).and_then(|held| held.net.clone());
        if let Some(net) = net {
            let ended = net.cut();
            tracing::debug!(sandbox, ended, "the network is cut");
        }
        self.inner.broker.close(sandbox, "the sandbox is being taken down");
    }

    async fn gone(&self, sandbox: &str) {
        let held = self.inner.lock().remove(sandbox);
        // The gates' own threads are joined.
        if let Err(error) = spawn_blocking(move || drop(held)).await {
            tracing::error!(sandbox, %error, "a gate was not taken down");
        }
        self.inner.exec.remove_scope(sandbox);
        self.inner.tables.remove(sandbox);
        self.inner.broker.close(sandbox, "the sandbox is gone");
    }
}
