//! The network gate: the only way out of a sandbox.
//!
//! A sandbox's network namespace has `lo` and nothing else. A local route makes every IPv4 address local, and an
//! `sk_lookup` program gives every TCP connection that is not for loopback to the gate's listener, whose accepted
//! socket then has the dialled address as its own. Names are answered inside with made-up addresses, one for each
//! name, so that a connection is always to a *name* or to an address that the client brought itself. The gate finds
//! the row that decides, looks at the first bytes, asks if the row says so, resolves the name on the host's side,
//! dials an address that it has checked, and splices.
//!
//! Where a row looks at HTTP requests, the gate reads the whole connection, and decides each request by itself.
//!
//! Beside all this, the policy's nftables ruleset holds in the namespace, by the kernel alone.
//!
//! What it does not see: requests after the first on one HTTP connection about which no row says more, and what is
//! inside TLS. A row that allows a name allows what the server of that name can be made to do.
//!
//! | when | what a process in the sandbox gets |
//! |---|---|
//! | nothing is attached yet | connection refused |
//! | the gate is cut, or the loader is gone | connection refused |
//! | a connection cannot be attributed, read or resolved | denied |

mod address;
mod bpf;
mod connection;
mod decide;
mod dial;
mod dns;
mod first_bytes;
mod http;
mod live;
mod lookalike;
mod message;
mod name;
mod netns;
mod nftables;
mod peek;
mod pool;
mod probe;
mod publish;
mod refusals;
mod refuse;
mod report;
mod request;
mod row;
mod sandbox;
mod shared;
mod splice;
mod story;
mod stream;
mod table;

use std::path::Path;
use std::sync::Arc;

use clawsec_core::{Asker, EventSink, Scope};
use clawsec_proto as pb;
use tokio::runtime::Handle;

pub use bpf::BpfError;
pub use netns::NetnsError;
pub use nftables::Ruleset;
pub use probe::{probe, probe_nftables};
pub use sandbox::{NetError, SandboxNet};
pub use table::TableError;

use report::Reporter;
use shared::Shared;
use table::Table;

/// Makes the gates of sandboxes.
pub struct NetGate {
    asker: Arc<dyn Asker>,
    events: Arc<dyn EventSink>,
    runtime: Handle,
}

impl NetGate {
    /// The gates' tasks run on `runtime`, whose threads must be in the network namespace that connections leave from.
    pub fn new(asker: Arc<dyn Asker>, events: Arc<dyn EventSink>, runtime: Handle) -> Self {
        Self { asker, events, runtime }
    }

    /// Makes a network namespace that leads nowhere and binds it to the new file `path`.
    pub fn create_netns(&self, path: &Path) -> Result<(), NetError> {
        Ok(netns::create(path)?)
    }

    /// Begins to apply the policy's nftables ruleset, a libnftables-json(5) document of at most 64 KiB, in the
    /// namespace at `path`. It holds when [`Ruleset::in_force`] has returned; nothing of the user's may run before.
    pub fn apply_ruleset(&self, path: &Path, json: Vec<u8>) -> Result<Ruleset, NetError> {
        Ruleset::apply(path, json)
    }

    /// Unmounts and removes a namespace that was made but not attached, or left by a loader that died.
    pub fn remove_netns(&self, path: &Path) -> Result<(), NetError> {
        Ok(netns::remove(path)?)
    }

    /// Wires a sandbox: programs on the cgroups of `scope` and on the namespace at `netns`, sockets, tasks.
    ///
    /// `subjects` says which loopback ports each subject of the scope may reach; `table` and `epoch` are what is
    /// decided by. Blocks for some milliseconds. On an error nothing stays attached, and the namespace file stays.
    pub fn attach(
        &self,
        scope: &Scope,
        subjects: &[pb::Subject],
        netns: &Path,
        table: &pb::NetworkTable,
        epoch: u64,
    ) -> Result<SandboxNet, NetError> {
        let table = Table::compile(table, epoch)?;
        let mut programs = bpf::Programs::load()?;
        programs.attach_subjects(scope, subjects)?;
        let reporter = Reporter::new(&scope.sandbox, self.events.clone());
        let flows = programs.flows()?;
        let shared = Arc::new(Shared::new(scope.clone(), self.asker.clone(), reporter, table, flows));
        let refusals = programs.refusals()?;
        SandboxNet::start(&self.runtime, netns, programs, shared, refusals)
    }
}
