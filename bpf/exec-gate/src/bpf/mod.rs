//! Loads, attaches and pins the BPF programs, and talks to their maps.
//!
//! Each load has its own generation of pins, `<pin_dir>/exec-<random>/`. A new generation is attached, and knows the
//! scopes of the old ones, before their pins are removed: there is no moment without verification.

pub mod abi;
pub mod caller;
pub mod event;
pub mod lsm;

use std::ffi::OsStr;
use std::fs;
use std::hash::Hasher;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clawsec_core::Without;
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, ObjectBuilder, RingBuffer, RingBufferBuilder};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use siphasher::sip::SipHasher24;

use self::abi::{
    APPROVAL_SIZE, Approval, COUNTERS, Counters, ExecResult, IMAGE_SIZE, RunningImage, SCOPE_SIZE,
};
use self::caller::Callers;
use self::lsm::{Chain, ExecLsm, Refusals};
use crate::error::Error;

static TYPED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/exec_verify.bpf.o"));
static RAW: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/exec_verify_raw.bpf.o"));
/// Index of the scopes that an earlier loader left.
pub const FOREIGN: u32 = u32::MAX;
const PIN_PREFIX: &str = "exec-";
/// Bytes of the ring buffer for events, as `exec_verify.bpf.c` has it: some thousand of them.
pub const RING_BYTES: u32 = 4 << 20;

/// What the programs are attached to. Both see the same execs; raw ones read the kernel's structures a little slower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracepoints {
    /// `tp_btf`
    Typed,
    /// `raw_tp`
    Raw,
}

impl Tracepoints {
    /// As libbpf calls them.
    pub fn name(self) -> &'static str {
        match self {
            Self::Typed => "tp_btf",
            Self::Raw => "raw_tp",
        }
    }

    fn is_left_out(self, without: Without) -> bool {
        match self {
            Self::Typed => without.typed_tracepoints,
            Self::Raw => without.raw_tracepoints,
        }
    }
}

/// The loaded programs. They stay attached through their pins when this is dropped, until [`ExecVerify::unpin`].
pub struct ExecVerify {
    scopes: MapHandle,
    namespaces: MapHandle,
    approvals: MapHandle,
    images: MapHandle,
    counters: MapHandle,
    events: MapHandle,
    programs: Vec<u32>,
    key: [u64; 2],
    lsm: Option<ExecLsm>,
    pins: Option<PathBuf>,
    tracepoints: Tracepoints,
    _links: Vec<Link>,
}

/// Where an exec without approval ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// It is killed before its first instruction.
    Verify,
    /// It is refused before the image is replaced, by BPF-LSM; and killed if that ever fails.
    LsmAndVerify,
}

impl ExecVerify {
    /// Loads and attaches. With a folder below a bpf file system the programs are pinned there, and take over from
    /// older ones; without one they are gone with the last reference (for probes). `ring_bytes`: room for events, a
    /// power of two and at least a page; those that find none are counted.
    ///
    /// # Errors
    /// Of each kind of tracepoints that is not left out, why it cannot be used.
    pub fn load(
        pin_dir: Option<&Path>,
        layers: Layers,
        without: Without,
        ring_bytes: u32,
    ) -> Result<Self, Error> {
        let mut refused = Vec::new();
        for tracepoints in [Tracepoints::Typed, Tracepoints::Raw] {
            if tracepoints.is_left_out(without) {
                refused.push(format!("{} is left out, as the loader was told", tracepoints.name()));
                continue;
            }
            match Self::load_on(pin_dir, layers, tracepoints, ring_bytes) {
                Ok(verify) => return Ok(verify),
                Err(error) => {
                    tracing::warn!(%error, tracepoints = tracepoints.name(), "execs cannot be verified so");
                    refused.push(format!("{}: {error}", tracepoints.name()));
                }
            }
        }
        let what = match layers {
            Layers::Verify => "no exec can be verified, so none can be allowed",
            Layers::LsmAndVerify => "no exec can be refused by BPF-LSM",
        };
        Err(Error::Refused(format!("{what}: {}", refused.join("; "))))
    }

    /// What the programs are attached to.
    pub fn tracepoints(&self) -> Tracepoints {
        self.tracepoints
    }

    fn load_on(
        pin_dir: Option<&Path>,
        layers: Layers,
        tracepoints: Tracepoints,
        ring_bytes: u32,
    ) -> Result<Self, Error> {
        let key = random_key()?;
        let object = match tracepoints {
            Tracepoints::Typed => TYPED,
            Tracepoints::Raw => RAW,
        };
        let mut open = ObjectBuilder::default().open_memory(object).map_err(Error::bpf("opened"))?;
        let mut key_set = false;
        for mut map in open.maps_mut() {
            if map.name() == OsStr::new(".rodata.key") {
                let bytes: Vec<u8> = key.iter().flat_map(|half| half.to_ne_bytes()).collect();
                map.set_initial_value(&bytes).map_err(Error::bpf("given its key"))?;
                key_set = true;
            } else if map.name() == OsStr::new("events") {
                map.set_max_entries(ring_bytes).map_err(Error::bpf("given room for events"))?;
            }
        }
        if !key_set {
            return Err(Error::Abi(".rodata.key"));
        }
        let object = open.load().map_err(Error::bpf("loaded"))?;

        let handle = |name: &'static str, key_size: u32, value_size: usize| {
            let map = object.maps().find(|map| map.name() == OsStr::new(name)).ok_or(Error::Abi(name))?;
            if map.key_size() != key_size || map.value_size() as usize != value_size {
                return Err(Error::Abi(name));
            }
            MapHandle::try_from(&map).map_err(Error::bpf("opened"))
        };
        let scopes = handle("scopes", 8, SCOPE_SIZE)?;
        let namespaces = handle("namespaces", 8, SCOPE_SIZE)?;
        let approvals = handle("approvals", 4, APPROVAL_SIZE)?;
        let images = handle("images", 4, IMAGE_SIZE)?;
        let counters = handle("counters", 4, 8)?;
        let events = handle("events", 0, 0)?;

        if let Some(pin_dir) = pin_dir {
            inherit_scopes(pin_dir, &scopes)?;
        }
        let mut links = Vec::new();
        let mut programs = Vec::new();
        for program in object.progs_mut() {
            let id = libbpf_rs::Program::id_from_fd(program.as_fd()).map_err(Error::bpf("identified"))?;
            programs.push(id);
            links.push(program.attach().map_err(Error::bpf("attached"))?);
        }
        let lsm = match layers {
            Layers::Verify => None,
            Layers::LsmAndVerify => {
                let (lsm, more) = ExecLsm::load([
                    ("scopes", &scopes),
                    ("namespaces", &namespaces),
                    ("approvals", &approvals),
                    ("events", &events),
                ])?;
                links.extend(more);
                Some(lsm)
            }
        };

        let mut verify = Self {
            scopes,
            namespaces,
            approvals,
            images,
            counters,
            events,
            programs,
            key,
            lsm,
            pins: None,
            tracepoints,
            _links: Vec::new(),
        };
        if let Some(pin_dir) = pin_dir {
            verify.pin(pin_dir, &mut links)?;
        }
        verify._links = links;
        Ok(verify)
    }

    fn pin(&mut self, pin_dir: &Path, links: &mut [Link]) -> Result<(), Error> {
        let old = generations(pin_dir)?;
        let own = pin_dir.join(format!("{PIN_PREFIX}{:016x}", random_key()?[0]));
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Pin { path, source }
        };
        fs::create_dir(&own).map_err(at(&own))?;
        let pinned = (|| {
            for (number, link) in links.iter_mut().enumerate() {
                link.pin(own.join(format!("link{number}")))?;
            }
            self.scopes.pin(own.join("scopes"))?;
            self.approvals.pin(own.join("approvals"))?;
            self.images.pin(own.join("images"))?;
            self.counters.pin(own.join("counters"))
        })();
        if let Err(error) = pinned {
            remove_generation(&own).map_err(at(&own))?;
            return Err(Error::Bpf { what: "pinned", source: error });
        }
        for generation in old {
            remove_generation(&generation).map_err(at(&generation))?;
        }
        self.pins = Some(own);
        Ok(())
    }

    /// Removes the pins. The verification ends when this value is dropped too.
    pub fn unpin(&self) -> io::Result<()> {
        self.pins.as_deref().map_or(Ok(()), remove_generation)
    }

    /// Puts a cgroup under verification. A full map is an error: the caller must not start anything there.
    pub fn add_scope(&self, cgroup: u64, sandbox: u32) -> Result<(), Error> {
        let mut value = [0; SCOPE_SIZE];
        value[..4].copy_from_slice(&sandbox.to_ne_bytes());
        self.scopes
            .update(&cgroup.to_ne_bytes(), &value, MapFlags::ANY)
            .map_err(Error::bpf("extended to a cgroup"))
    }

    /// Ends the verification of a cgroup, which must be empty.
    pub fn remove_scope(&self, cgroup: u64) {
        // It fails when there is none, which is what is wanted.
        let _ = self.scopes.delete(&cgroup.to_ne_bytes());
    }

    /// Puts a mount namespace under verification, by its unique id: what execs there and is in no scope is killed.
    pub fn add_namespace(&self, id: u64, sandbox: u32) -> Result<(), Error> {
        let mut value = [0; SCOPE_SIZE];
        value[..4].copy_from_slice(&sandbox.to_ne_bytes());
        self.namespaces
            .update(&id.to_ne_bytes(), &value, MapFlags::ANY)
            .map_err(Error::bpf("extended to a mount namespace"))
    }

    /// Ends the verification of a mount namespace.
    pub fn remove_namespace(&self, id: u64) {
        // It fails when there is none, which is what is wanted.
        let _ = self.namespaces.delete(&id.to_ne_bytes());
    }

    /// Allows one exec of this thread, which comes to the files of the chain. An error means that the exec will fail or be
    /// killed.
    pub fn approve(&self, tid: i32, approval: Approval, chain: &Chain) -> Result<(), Error> {
        if let Some(lsm) = &self.lsm {
            lsm.tell(tid, chain)?;
        }
        self.approvals
            .update(&tid.to_ne_bytes(), &approval.to_bytes(), MapFlags::ANY)
            .map_err(Error::bpf("told of an approval"))
    }

    /// Takes an approval back. False: there was none any more.
    pub fn revoke(&self, tid: i32) -> bool {
        let revoked = self.approvals.delete(&tid.to_ne_bytes()).is_ok();
        self.used(tid);
        revoked
    }

    /// The approval of this thread is gone from the kernel: so goes what was kept beside it.
    pub fn used(&self, tid: i32) {
        if let Some(lsm) = &self.lsm {
            lsm.forget(tid);
        }
    }

    /// A way to ask about callers.
    ///
    /// # Errors
    /// The kernel has none.
    pub fn callers(&self) -> Result<Callers, Error> {
        Callers::load(&self.images)
    }

    /// Whether BPF-LSM refuses what is not approved.
    pub fn is_lsm_used(&self) -> bool {
        self.lsm.is_some()
    }

    /// What BPF-LSM refused, where it is used.
    pub fn refusals(&self) -> Refusals {
        self.lsm.as_ref().map(ExecLsm::refusals).unwrap_or_default()
    }

    /// Whether an approval of this thread waits to be used.
    pub fn is_approved(&self, tid: i32) -> bool {
        matches!(self.approvals.lookup(&tid.to_ne_bytes(), MapFlags::ANY), Ok(Some(_)))
    }

    /// Number of the exec whose image a process runs; 0 when it is not known, or is an image that was killed.
    pub fn image_of(&self, process: i32) -> u64 {
        match self.images.lookup(&process.to_ne_bytes(), MapFlags::ANY) {
            Ok(Some(bytes)) => match RunningImage::parse(&bytes) {
                Some(RunningImage { exec, result: ExecResult::Verified }) => exec,
                _ => 0,
            },
            _ => 0,
        }
    }

    /// The exec numbers that some process runs now.
    pub fn live_images(&self) -> Vec<u64> {
        let value = |key: Vec<u8>| self.images.lookup(&key, MapFlags::ANY).ok().flatten();
        let images = self.images.keys().filter_map(value);
        images.filter_map(|bytes| RunningImage::parse(&bytes)).map(|image| image.exec).collect()
    }

    /// Keyed hash of an argv as it lies in the memory of a process: each string with its terminating zero.
    pub fn hash(&self, argv: &[u8]) -> u64 {
        let mut hasher = SipHasher24::new_with_keys(self.key[0], self.key[1]);
        hasher.write(argv);
        hasher.finish()
    }

    /// What was counted since the load.
    pub fn counters(&self) -> Counters {
        let value = |index: u32| match self.counters.lookup(&index.to_ne_bytes(), MapFlags::ANY) {
            Ok(Some(bytes)) => bytes.try_into().map_or(0, u64::from_ne_bytes),
            _ => 0,
        };
        let mut values = [0; COUNTERS as usize];
        for (index, place) in values.iter_mut().enumerate() {
            *place = value(index as u32);
        }
        let [verified, killed, execs_lost, kill_failed, images_full, exits_lost] = values;
        let refusals = self.refusals();
        Counters {
            verified,
            killed,
            execs_lost: execs_lost + refusals.ring_full,
            exits_lost,
            kill_failed,
            images_full,
            missed: self.missed(),
            refused: refusals.refused,
        }
    }

    fn missed(&self) -> u64 {
        let infos = libbpf_rs::query::ProgInfoIter::default();
        infos.filter(|info| self.programs.contains(&info.id)).map(|info| info.recursion_misses).sum()
    }

    /// A reader of the events. To be polled by one thread.
    pub fn reader<'cb>(
        &'cb self,
        mut on_event: impl FnMut(event::Event) + 'cb,
        mut on_garbage: impl FnMut() + 'cb,
    ) -> Result<Reader<'cb>, Error> {
        let mut builder = RingBufferBuilder::new();
        let callback = move |bytes: &[u8]| {
            match event::Event::parse(bytes) {
                Some(event) => on_event(event),
                None => on_garbage(),
            }
            0
        };
        builder.add(&self.events, callback).map_err(Error::bpf("listened to"))?;
        let ring = builder.build().map_err(Error::bpf("listened to"))?;
        Ok(Reader { ring })
    }
}

/// Reads events in the order in which they happened, cpu by cpu.
pub struct Reader<'cb> {
    ring: RingBuffer<'cb>,
}

impl Reader<'_> {
    /// Waits until there is an event, or the bell can be read. False: there was none of it for `patience`.
    pub fn wait(&self, bell: &OwnedFd, patience: Duration) -> io::Result<bool> {
        // SAFETY: the ring keeps its descriptor open for as long as it is borrowed.
        let epoll = unsafe { BorrowedFd::borrow_raw(self.ring.epoll_fd()) };
        let mut fds = [PollFd::new(&epoll, PollFlags::IN), PollFd::new(bell, PollFlags::IN)];
        let limit = Timespec { tv_sec: 0, tv_nsec: patience.subsec_nanos().into() };
        match poll(&mut fds, Some(&limit)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads all that is there.
    pub fn read(&self) {
        if let Err(error) = self.ring.consume() {
            tracing::error!(%error, "the exec events cannot be read");
        }
    }
}

fn random_key() -> Result<[u64; 2], Error> {
    let mut bytes = [0u8; 16];
    // SAFETY: the buffer is as long as said.
    let read = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if read != bytes.len() as isize {
        return Err(Error::io("no random key for the exec verification")(io::Error::last_os_error()));
    }
    let (low, high) = bytes.split_at(8);
    let half = |part: &[u8]| part.try_into().map_or(0, u64::from_ne_bytes);
    Ok([half(low), half(high)])
}

fn generations(pin_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let at = |source| Error::Pin { path: pin_dir.to_owned(), source };
    fs::create_dir_all(pin_dir).map_err(at)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(pin_dir).map_err(at)? {
        let entry = entry.map_err(at)?;
        if entry.file_name().to_string_lossy().starts_with(PIN_PREFIX) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

// Processes of a loader that died stay under verification: nothing is approved for them any more. Their index means
// no sandbox of this loader.
fn inherit_scopes(pin_dir: &Path, scopes: &MapHandle) -> Result<(), Error> {
    for generation in generations(pin_dir)? {
        let path = generation.join("scopes");
        let old = match MapHandle::from_pinned_path(&path) {
            Ok(old) => old,
            // A loader that died while it was pinning; its scopes were empty.
            Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::Bpf { what: "taken over from an older one", source: error }),
        };
        for key in old.keys() {
            let mut value = [0; SCOPE_SIZE];
            value[..4].copy_from_slice(&FOREIGN.to_ne_bytes());
            scopes.update(&key, &value, MapFlags::ANY).map_err(Error::bpf("taken over from an older one"))?;
        }
    }
    Ok(())
}

// In the order of the names, so that the links go before `scopes`: what verifies can always be taken over.
fn remove_generation(path: &Path) -> io::Result<()> {
    let mut names: Vec<PathBuf> =
        fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    names.sort();
    for name in names {
        fs::remove_file(name)?;
    }
    fs::remove_dir(path)
}
