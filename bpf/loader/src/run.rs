//! The life of the process: prepare, serve, and at a signal leave nothing behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clawsec_proto as pb;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::broker::Broker;
use crate::cli::{Exit, Mechanism, Options};
use crate::host::{Host, Setup};
use crate::process;
use crate::server;
use crate::service::Service;
use crate::socket::{BindError, Peers, Socket};
use crate::spool::{Bounds, Spool};
use crate::tables::Tables;

/// Why the loader did not start, or did not end well.
#[derive(Debug)]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// One sentence for the person who started it.
    pub why: String,
}

fn failure(exit: Exit, why: impl ToString) -> Failure {
    Failure { exit, why: why.to_string() }
}

/// Runs until a signal. `conversation`: the runtime on which the supervisor is talked to; all other work is done on that
/// of the caller.
pub async fn run(options: Options, conversation: Handle) -> Result<(), Failure> {
    if !process::is_root() {
        return Err(failure(
            Exit::NotRoot,
            "the loader must be started as root: it makes cgroups, network namespaces and BPF programs",
        ));
    }
    if let Some(mechanism) = options.probe_only {
        return probe_only(mechanism).await;
    }
    let internal = |error: std::io::Error| failure(Exit::Internal, error);
    process::prepare().map_err(internal)?;
    let path = options.shim.as_deref().unwrap_or(Path::new(""));
    let shim = shim(path).map_err(|why| failure(Exit::Unavailable, why))?;
    let peers = peers(&options).map_err(|why| failure(Exit::CannotCreate, why))?;
    let socket = Socket::bind(&options.runtime_dir, peers).map_err(|error| match error {
        BindError::Busy(_) => failure(Exit::Busy, error),
        BindError::Unusable { .. } | BindError::Io { .. } => failure(Exit::CannotCreate, error),
    })?;
    // Signals are caught before there is anything to clean up.
    let mut signals = Signals::new().map_err(internal)?;

    let tables = Arc::new(Tables::default());
    let spool = Arc::new(Spool::new(Arc::clone(&tables), Bounds::default()));
    let broker = Broker::new(Arc::clone(&tables), Arc::clone(&spool) as _, conversation.clone());
    let runtime_dir = fs::canonicalize(&options.runtime_dir).map_err(internal)?;
    let setup = Setup {
        runtime_dir,
        shim,
        tables,
        broker: broker.clone(),
        spool: Arc::clone(&spool),
        without: options.without(),
    };
    let host = Host::open(setup).await.map_err(|why| failure(Exit::Unavailable, why))?;
    let boot_id = process::boot_id().map_err(internal)?;
    let service = Service {
        broker,
        spool,
        host: Arc::clone(&host),
        boot_id,
        without: options.without_names(),
        work: Handle::current(),
    };

    let socket = Arc::new(socket);
    tracing::info!(socket = %socket.path().display(), "ready");
    let mut serving = conversation.spawn(server::serve(Arc::clone(&socket), Arc::new(service)));
    let ended = tokio::select! {
        ended = &mut serving => {
            Err(failure(Exit::Internal, match ended {
                Ok(Ok(())) => "the server stopped by itself".to_owned(),
                Ok(Err(error)) => format!("the server broke: {error}"),
                Err(error) => format!("the server broke: {error}"),
            }))
        }
        name = signals.next() => {
            tracing::info!(signal = name, "stopping: every sandbox is killed");
            Ok(())
        }
    };
    if !serving.is_finished() {
        serving.abort();
        // It has its share of the socket until then.
        let _ = serving.await;
    }
    drop(socket);
    let survivors = host.shut_down().await;
    if survivors > 0 {
        return Err(failure(Exit::Internal, format!("{survivors} processes survived the kill")));
    }
    ended
}

/// Tries one mechanism, and prints its name, its level and what happened on one line.
async fn probe_only(mechanism: Mechanism) -> Result<(), Failure> {
    let tried = tokio::task::spawn_blocking(move || match mechanism {
        Mechanism::Apparmor => clawsec_sandbox::probe_apparmor(),
        Mechanism::Nftables => clawsec_net_gate::probe_nftables(),
    });
    let found = tried.await.map_err(|error| failure(Exit::Internal, error))?;
    let pb::Capability { name, level, detail, remedy, .. } = &found;
    match found.state() {
        pb::CapabilityState::Present => {
            println!("{}: {detail}", format!("{name} {level}").trim_end());
            Ok(())
        }
        _ => Err(failure(Exit::Unavailable, format!("{name} is missing: {detail}; {remedy}"))),
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hang_up.recv() => "SIGHUP",
        }
    }
}

fn shim(path: &Path) -> Result<PathBuf, String> {
    let unusable = |why: &str| format!("the init shim {} cannot be used: {why}", path.display());
    let path = fs::canonicalize(path).map_err(|error| unusable(&error.to_string()))?;
    let meta = fs::metadata(&path).map_err(|error| unusable(&error.to_string()))?;
    if !meta.is_file() {
        return Err(unusable("it is not a file"));
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Err(unusable("it is not executable"));
    }
    if meta.permissions().mode() & 0o002 != 0 {
        return Err(unusable("everybody may write to it"));
    }
    Ok(path)
}

fn peers(options: &Options) -> Result<Peers, String> {
    let gid = options.socket_group.as_deref().map(group).transpose()?;
    Ok(Peers { uid: options.socket_uid, gid })
}

fn group(name: &str) -> Result<u32, String> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    match nix::unistd::Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(format!("there is no group {name:?}; make it with: groupadd --system {name:?}")),
        Err(error) => Err(format!("the group {name:?} could not be looked up: {error}")),
    }
}
