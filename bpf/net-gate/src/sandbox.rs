//! The gate of one sandbox.

use std::fs::File;
use std::io;
use std::net::{SocketAddrV4, TcpListener as StdListener, UdpSocket as StdUdp};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clawsec_proto as pb;
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::bpf::{BpfError, Programs, Refusals};
use crate::netns::{self, NetnsError, SocketMaker};
use crate::refusals;
use crate::shared::Shared;
use crate::table::{Table, TableError};
use crate::{connection, dns, live, pool, publish};

/// Why a gate could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The network namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel's part.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// The policy's rows.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A socket, thread or descriptor.
    #[error("network gate: {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
}

pub(crate) fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> NetError {
    let what = what.into();
    move |source| NetError::Io { what, source }
}

/// The gate's sockets inside the namespace.
struct Sockets {
    gate: StdListener,
    dns_udp: StdUdp,
    dns_tcp: StdListener,
}

impl Sockets {
    fn make(netns: &File) -> io::Result<Self> {
        let sockets = netns::inside(netns, || {
            Ok(Self {
                gate: StdListener::bind(SocketAddrV4::new(pool::LISTENER, 1))?,
                dns_udp: StdUdp::bind(dns::SERVER)?,
                dns_tcp: StdListener::bind(dns::SERVER)?,
            })
        })?;
        sockets.gate.set_nonblocking(true)?;
        sockets.dns_udp.set_nonblocking(true)?;
        sockets.dns_tcp.set_nonblocking(true)?;
        // As many unaccepted connections as the kernel lets us have: a burst is not an error.
        rustix::net::listen(&sockets.gate, 4096)?;
        Ok(sockets)
    }
}

/// The network of one sandbox, from [`crate::NetGate::attach`] to [`SandboxNet::remove`] or drop.
///
/// After [`SandboxNet::cut`] nothing goes through any more. The programs on the subjects' cgroups stay until drop,
/// so a sandbox must be dead before its gate is dropped; if it is not, it has no network all the same.
#[derive(Debug)]
pub struct SandboxNet {
    shared: Arc<Shared>,
    programs: Mutex<Programs>,
    /// Own descriptors of all listeners, so that they can be shut from any thread.
    listeners: Mutex<Vec<OwnedFd>>,
    inside: Arc<SocketMaker>,
    stop: CancellationToken,
    refusals: Option<RefusalThread>,
    runtime: Handle,
    netns: PathBuf,
}

#[derive(Debug)]
struct RefusalThread {
    stop: Arc<EventFd>,
    thread: std::thread::JoinHandle<()>,
}

impl SandboxNet {
    /// Makes the sockets, attaches the programs and starts the tasks. Nothing stays attached on an error.
    pub(crate) fn start(
        runtime: &Handle,
        netns_path: &Path,
        mut programs: Programs,
        shared: Arc<Shared>,
        reader: Refusals,
    ) -> Result<Self, NetError> {
        let netns = netns::open(netns_path)?;
        let sockets = Sockets::make(&netns).map_err(io_error("its sockets cannot be made in the sandbox"))?;
        let steered = sockets.gate.as_fd();
        programs.steer(&netns, steered)?;
        let copy = |fd: std::os::fd::BorrowedFd<'_>| {
            fd.try_clone_to_owned().map_err(io_error("a listener's descriptor cannot be copied"))
        };
        let listeners = vec![copy(sockets.gate.as_fd())?, copy(sockets.dns_tcp.as_fd())?];
        let inside = SocketMaker::start(netns).map_err(io_error("the thread in the sandbox's namespace"))?;

        let stop = CancellationToken::new();
        let cannot = "its sockets cannot be given to the runtime";
        let _entered = runtime.enter();
        let gate = TcpListener::from_std(sockets.gate).map_err(io_error(cannot))?;
        let dns_udp = UdpSocket::from_std(sockets.dns_udp).map_err(io_error(cannot))?;
        let dns_tcp = TcpListener::from_std(sockets.dns_tcp).map_err(io_error(cannot))?;
        let refusals = RefusalThread::start(reader, shared.clone())?;
        let net = Self {
            shared,
            programs: Mutex::new(programs),
            listeners: Mutex::new(listeners),
            inside: Arc::new(inside),
            stop,
            refusals: Some(refusals),
            runtime: runtime.clone(),
            netns: netns_path.to_owned(),
        };
        net.spawn(accept(net.shared.clone(), gate));
        net.spawn(dns::serve_udp(net.shared.clone(), dns_udp));
        net.spawn(dns::serve_tcp(net.shared.clone(), dns_tcp));
        Ok(net)
    }

    /// Runs a task until the gate is cut.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.runtime.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Puts a new table in force, in one step. Connections that it would not let through are reset; their number is
    /// returned. On an error the old table stays.
    pub fn apply(&self, table: &pb::NetworkTable, epoch: u64) -> Result<usize, NetError> {
        let table = Table::compile(table, epoch)?;
        self.shared.table.store(Arc::new(table));
        self.shared.answers.clear();
        let ended = self.shared.live.end_unless(|grant| self.shared.stands(grant));
        for grant in &ended {
            let ruling = self.shared.ruling(grant);
            refusals::report_ended(&self.shared, grant, &ruling);
        }
        Ok(ended.len())
    }

    /// Epoch of the table in force.
    pub fn epoch(&self) -> u64 {
        self.shared.table.load().epoch
    }

    /// Publishes a port of the sandbox on the host. Returns the port on the host.
    pub fn publish(&self, port: &pb::PublishedPort) -> Result<u16, NetError> {
        let what =
            format!("port {} cannot be published on {}:{}", port.sandbox_port, port.host_ip, port.host_port);
        let number = |port| u16::try_from(port).map_err(|_| io::Error::other("no port number"));
        let host_port = number(port.host_port).map_err(io_error(what.clone()))?;
        let sandbox_port = number(port.sandbox_port).map_err(io_error(what.clone()))?;
        let listener = publish::listen(&port.host_ip, host_port).map_err(io_error(what.clone()))?;
        let bound = listener.local_addr().map_err(io_error(what.clone()))?.port();
        let copy = listener.as_fd().try_clone_to_owned().map_err(io_error(what.clone()))?;
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if self.stop.is_cancelled() {
            return Err(io_error(what)(io::Error::other("the sandbox's network is cut")));
        }
        listeners.push(copy);
        let _entered = self.runtime.enter();
        let listener = TcpListener::from_std(listener).map_err(io_error(what))?;
        self.spawn(publish::serve(self.shared.clone(), listener, self.inside.clone(), sandbox_port));
        Ok(bound)
    }

    /// Ends it all, now: no new connection, every live one reset on both sides. When this returns, it is done.
    /// Returns the number of connections that were alive. Idempotent.
    pub fn cut(&self) -> usize {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner).stop_steering();
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        self.stop.cancel();
        for listener in listeners.drain(..) {
            // Leaves the state LISTEN at once and resets what was not accepted yet (tcp(7), shutdown(2)).
            let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Read);
        }
        drop(listeners);
        self.shared.live.close()
    }

    /// Connections at the gate now, held ones included.
    pub fn connections(&self) -> usize {
        self.shared.live.count()
    }

    /// Connections that the sandbox may have at the gate at once: 4,096, or as many as a half of the descriptors that
    /// this process may open (`RLIMIT_NOFILE`, the soft one) is enough for.
    pub fn connection_limit(&self) -> usize {
        self.shared.most_connections
    }

    /// Cuts, detaches, and unmounts and removes the file of the namespace.
    pub fn remove(mut self) -> Result<(), NetError> {
        self.close();
        netns::remove(&self.netns)?;
        Ok(())
    }

    fn close(&mut self) {
        self.cut();
        if let Some(refusals) = self.refusals.take() {
            refusals.stop();
        }
        let held_back = self.shared.throttle.take_held_back();
        if held_back > 0 {
            self.shared.reporter.lost("network-throttled", held_back);
        }
    }
}

impl Drop for SandboxNet {
    fn drop(&mut self) {
        self.close();
        // Nobody is left to be told; `remove` is the way to hear of it.
        let _ = netns::remove(&self.netns);
    }
}

impl RefusalThread {
    fn start(reader: Refusals, shared: Arc<Shared>) -> Result<Self, NetError> {
        let cannot = "the thread for the kernel's refusals";
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let stop = EventFd::from_flags(flags).map_err(|error| io_error(cannot)(error.into()))?;
        let stop = Arc::new(stop);
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("clawsec-net-bpf".into())
            .spawn(move || {
                let missed = |count| shared.reporter.lost("network-ring-full", count);
                let ended = reader.run(stopped.as_fd(), |refusal| refusals::report(&shared, &refusal), missed);
                if let Err(error) = ended {
                    tracing::error!(sandbox = %shared.sandbox, %error, "refusals of the kernel are no longer read");
                    shared.reporter.lost("network-ring-closed", 1);
                }
            })
            .map_err(io_error(cannot))?;
        Ok(Self { stop, thread })
    }

    fn stop(self) {
        // The counter cannot be full: this is the only write. A panic of the thread was its own report.
        let _ = self.stop.write(1);
        let _ = self.thread.join();
    }
}

/// Accepts at the gate. Connections beyond the limit are reset.
async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // Out of descriptors, most likely: what waits is accepted when there are some again.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(permit) = shared.room.clone().try_acquire_owned() else {
            live::abort(&client);
            refusals::report_full(&shared);
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            connection::serve(shared, client).await;
            drop(permit);
        });
    }
}
