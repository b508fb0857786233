//! The BPF programs of one sandbox, and their maps.

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use clawsec_core::Scope;
use clawsec_proto as pb;
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Object, ObjectBuilder, RingBufferBuilder};

/// The compiled program, aligned as an ELF file has to be.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);
static PROGRAM: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/net_gate.bpf.o")));

/// What is done with the socket calls of a subject's tasks.
const CGROUP_PROGRAMS: [&str; 5] = ["connect4", "connect6", "sendmsg4", "sendmsg6", "egress"];

/// What the kernel refused of the programs.
#[derive(Debug, thiserror::Error)]
#[error("network gate: {what}: {source}")]
pub struct BpfError {
    what: String,
    source: io::Error,
}

fn fail<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> BpfError {
    let what = what.into();
    move |source| BpfError { what, source: source.into() }
}

fn libbpf(error: libbpf_rs::Error) -> io::Error {
    io::Error::other(error.to_string())
}

/// Who opened a connection or sent a packet, as the kernel noted it at that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Id of the task's cgroup.
    pub(crate) cgroup: u64,
    /// Process id on the host.
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) comm: String,
}

/// `struct origin` of the BPF program.
const ORIGIN_SIZE: usize = 40;
/// `struct refusal`.
const REFUSAL_SIZE: usize = 64;

impl Origin {
    fn read(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let comm = bytes.get(20..36)?;
        let end = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
        Some(Self {
            cgroup: u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?),
            pid: word(8)?,
            uid: word(12)?,
            gid: word(16)?,
            comm: String::from_utf8_lossy(&comm[..end]).into_owned(),
        })
    }
}

/// A socket call that the kernel refused by itself.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) origin: Origin,
    pub(crate) address: std::net::IpAddr,
    pub(crate) port: u16,
    /// IP protocol number.
    pub(crate) protocol: u16,
}

impl Refusal {
    fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < REFUSAL_SIZE {
            return None;
        }
        let address: [u8; 16] = bytes[ORIGIN_SIZE..ORIGIN_SIZE + 16].try_into().ok()?;
        let address = Ipv6Addr::from(address);
        let half = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Some(Self {
            origin: Origin::read(bytes)?,
            address: address.to_ipv4_mapped().map_or(address.into(), Into::into),
            port: half(56),
            protocol: half(58),
        })
    }
}

/// The transport of a connection or packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// Loaded programs, not yet attached to a namespace.
#[derive(Debug)]
pub(crate) struct Programs {
    object: Object,
    flows: MapHandle,
    cgroup_links: Vec<Link>,
    steer_link: Option<Link>,
}

impl Programs {
    /// Loads programs and maps.
    pub(crate) fn load() -> Result<Self, BpfError> {
        let object = ObjectBuilder::default()
            .name("clawsec_net")
            .and_then(|builder| builder.open_memory(&PROGRAM.0))
            .and_then(libbpf_rs::OpenObject::load)
            .map_err(libbpf)
            .map_err(fail("the kernel does not load its programs"))?;
        let flows = handle(&object, "flows")?;
        Ok(Self { object, flows, cgroup_links: Vec::new(), steer_link: None })
    }

    /// Attaches to the cgroup of every subject, with the loopback ports each may reach.
    pub(crate) fn attach_subjects(
        &mut self,
        scope: &Scope,
        subjects: &[pb::Subject],
    ) -> Result<(), BpfError> {
        let known = handle(&self.object, "subjects")?;
        let openings = handle(&self.object, "openings")?;
        for subject in &scope.subjects {
            let what = format!("subject {}", subject.name);
            let rights =
                subjects.iter().find(|rights| rights.name == subject.name).ok_or_else(|| BpfError {
                    what: what.clone(),
                    source: io::Error::other("the request says nothing of its loopback ports"),
                })?;
            let mut entry = [0; 8];
            entry[..4].copy_from_slice(&u32::from(rights.loopback_any).to_ne_bytes());
            known
                .update(&subject.cgroup_id.to_ne_bytes(), &entry, MapFlags::ANY)
                .map_err(libbpf)
                .map_err(fail(what.clone()))?;
            for port in &rights.loopback_ports {
                let mut key = [0; 16];
                key[..8].copy_from_slice(&subject.cgroup_id.to_ne_bytes());
                key[8..12].copy_from_slice(&port.to_ne_bytes());
                openings
                    .update(&key, &1_u32.to_ne_bytes(), MapFlags::ANY)
                    .map_err(libbpf)
                    .map_err(fail(what.clone()))?;
            }
            let folder = File::open(&subject.cgroup).map_err(fail(format!("cgroup of {what}")))?;
            for name in CGROUP_PROGRAMS {
                let program = self.program(name)?;
                let link = program
                    .attach_cgroup(folder.as_raw_fd())
                    .map_err(libbpf)
                    .map_err(fail(format!("{name} cannot be attached to the cgroup of {what}")))?;
                self.cgroup_links.push(link);
            }
        }
        Ok(())
    }

    /// Gives every TCP connection of the namespace that is not for loopback to `listener`.
    pub(crate) fn steer(&mut self, netns: &File, listener: BorrowedFd<'_>) -> Result<(), BpfError> {
        let value = u64::try_from(listener.as_raw_fd())
            .map_err(|error| BpfError { what: "the listener".into(), source: io::Error::other(error) })?;
        handle(&self.object, "gate")?
            .update(&0_u32.to_ne_bytes(), &value.to_ne_bytes(), MapFlags::ANY)
            .map_err(libbpf)
            .map_err(fail("the listener cannot be put in its map"))?;
        let link = self
            .program("steer")?
            .attach_netns(netns.as_raw_fd())
            .map_err(libbpf)
            .map_err(fail("sk_lookup cannot be attached to the namespace"))?;
        self.steer_link = Some(link);
        Ok(())
    }

    /// Stops steering: nobody listens at any address from here on. The subjects' programs stay.
    pub(crate) fn stop_steering(&mut self) {
        self.steer_link = None;
    }

    /// Who began this flow, once: the entry is removed, so that a later flow of the same addresses cannot use it.
    pub(crate) fn take_origin(
        &self,
        transport: Transport,
        source: SocketAddrV4,
        destination: SocketAddrV4,
    ) -> Option<Origin> {
        take_origin(&self.flows, transport, source, destination)
    }

    /// A handle for looking origins up without these programs.
    pub(crate) fn flows(&self) -> Result<Flows, BpfError> {
        Ok(Flows(handle(&self.object, "flows")?))
    }

    /// A handle for reading refusals.
    pub(crate) fn refusals(&self) -> Result<Refusals, BpfError> {
        Ok(Refusals { ring: handle(&self.object, "refusals")?, missed: handle(&self.object, "missed")? })
    }

    fn program(&self, name: &str) -> Result<libbpf_rs::ProgramMut<'_>, BpfError> {
        self.object.progs_mut().find(|program| program.name() == name).ok_or_else(|| BpfError {
            what: format!("program {name}"),
            source: io::ErrorKind::NotFound.into(),
        })
    }
}

fn handle(object: &Object, name: &str) -> Result<MapHandle, BpfError> {
    let map = object
        .maps()
        .find(|map| map.name() == name)
        .ok_or_else(|| BpfError { what: format!("map {name}"), source: io::ErrorKind::NotFound.into() })?;
    MapHandle::try_from(&map).map_err(libbpf).map_err(fail(format!("map {name}")))
}

/// The map from flows to those who began them.
#[derive(Debug)]
pub(crate) struct Flows(MapHandle);

impl Flows {
    /// See [`Programs::take_origin`].
    pub(crate) fn take(
        &self,
        transport: Transport,
        source: SocketAddrV4,
        destination: SocketAddrV4,
    ) -> Option<Origin> {
        take_origin(&self.0, transport, source, destination)
    }
}

fn take_origin(
    flows: &MapHandle,
    transport: Transport,
    source: SocketAddrV4,
    destination: SocketAddrV4,
) -> Option<Origin> {
    let mut key = [0; 16];
    let octets = |address: &Ipv4Addr| address.octets();
    key[..4].copy_from_slice(&octets(source.ip()));
    key[4..8].copy_from_slice(&octets(destination.ip()));
    key[8..10].copy_from_slice(&source.port().to_be_bytes());
    key[10..12].copy_from_slice(&destination.port().to_be_bytes());
    let protocol = match transport {
        Transport::Tcp => libc::IPPROTO_TCP,
        Transport::Udp => libc::IPPROTO_UDP,
    };
    key[12..].copy_from_slice(&protocol.to_ne_bytes());
    let value = flows.lookup_and_delete(&key).ok().flatten()?;
    Origin::read(&value)
}

/// Where refusals of the kernel's part are read.
#[derive(Debug)]
pub(crate) struct Refusals {
    ring: MapHandle,
    missed: MapHandle,
}

impl Refusals {
    /// Hands every refusal to `take`, until `stop` becomes readable. Then what is left is handed over too.
    pub(crate) fn run(
        &self,
        stop: BorrowedFd<'_>,
        mut take: impl FnMut(Refusal),
        mut missed: impl FnMut(u64),
    ) -> io::Result<()> {
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&self.ring, move |bytes| {
                if let Some(refusal) = Refusal::read(bytes) {
                    take(refusal);
                }
                0
            })
            .map_err(libbpf)?;
        let ring = builder.build().map_err(libbpf)?;
        let mut known_missed = 0;
        loop {
            // SAFETY: the descriptor belongs to `ring`, which lives to the end of this function.
            let readable = unsafe { BorrowedFd::borrow_raw(ring.epoll_fd()) };
            let mut waiting = [
                nix::poll::PollFd::new(readable.as_fd(), nix::poll::PollFlags::POLLIN),
                nix::poll::PollFd::new(stop, nix::poll::PollFlags::POLLIN),
            ];
            match nix::poll::poll(&mut waiting, nix::poll::PollTimeout::NONE) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let stopping = waiting[1].any().unwrap_or(true);
            ring.consume().map_err(libbpf)?;
            let total = self.count_missed();
            if total > known_missed {
                missed(total - known_missed);
                known_missed = total;
            }
            if stopping {
                return Ok(());
            }
        }
    }

    fn count_missed(&self) -> u64 {
        let value = self.missed.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY).ok().flatten();
        value.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
    }
}

const _: () = assert!(size_of::<u64>() + 3 * size_of::<u32>() + 16 + size_of::<u32>() == ORIGIN_SIZE);
