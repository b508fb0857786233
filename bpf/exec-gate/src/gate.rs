//! The gate: what is shared by the sandboxes, and what the loader calls.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use clawsec_core::{Asker, EventSink, Scope, Without, pb};
use tokio::runtime::Handle;

use crate::again::Calls;
use crate::asking::Asking;
use crate::at_once::Told;
use crate::bpf::abi::{ARGV_MAX, Approval, Counters, LEVEL_MAX};
use crate::bpf::caller::Callers;
use crate::bpf::lsm::Chain;
use crate::bpf::{ExecVerify, FOREIGN, Layers, RING_BYTES};
use crate::cache::Cache;
use crate::copies::Held;
use crate::digest::Digests;
use crate::error::Error;
use crate::file::Mounts;
use crate::handler::ExecHandler;
use crate::hold::Tracer;
use crate::image::Headers;
use crate::lineage::Lineage;
use crate::notify::{self, NotifyHandler, Serving};
use crate::order::Order;
use crate::pending::{Pending, PendingExecs};
use crate::policy::ExecPolicy;
use crate::reason::Budget;
use crate::resolve::View;
use crate::{observe, sys, tracee};

/// Verdicts kept for one sandbox (twice this at most).
const VERDICTS_MAX: usize = 2048;

/// Changes with each boot of the machine (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A decision that may be used again.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub decision: pb::Decision,
    pub epoch: u64,
}

/// What the gate knows of one sandbox.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub scope: Scope,
    pub view: View,
    pub headers: Headers,
    pub verdicts: Mutex<Cache<Vec<u8>, Arc<Verdict>>>,
    pub held: Held,
    pub digests: Digests,
    pub budget: Budget,
    pub calls: Calls,
    pub asking: Arc<Asking>,
    policy: RwLock<Arc<ExecPolicy>>,
    // Ids of the mount namespaces that are verified.
    namespaces: Mutex<Vec<u64>>,
}

impl Sandbox {
    fn new(scope: Scope) -> Self {
        Self {
            scope,
            view: View::default(),
            headers: Headers::default(),
            verdicts: Mutex::new(Cache::new(VERDICTS_MAX)),
            held: Held::default(),
            digests: Digests::default(),
            budget: Budget::default(),
            calls: Calls::default(),
            asking: Arc::default(),
            policy: RwLock::default(),
            namespaces: Mutex::default(),
        }
    }

    /// The policy that was applied last.
    pub fn policy(&self) -> Arc<ExecPolicy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What all threads of the gate share.
pub(crate) struct Shared {
    pub verify: ExecVerify,
    /// `None`: this kernel cannot be asked so.
    pub callers: Option<Callers>,
    pub asker: Arc<dyn Asker>,
    pub events: Arc<Order>,
    pub handle: Handle,
    /// A signal interrupts a call that waits for its answer, also one whose answer was just given.
    pub interruptible: bool,
    pub lineage: Lineage,
    pub pending: Mutex<PendingExecs>,
    pub sandboxes: RwLock<HashMap<u32, Arc<Sandbox>>>,
    pub stopping: AtomicBool,
}

impl Shared {
    pub fn pending(&self) -> MutexGuard<'_, PendingExecs> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Allows one exec, and keeps `files` until it was seen or failed. What was `decided` is reported with it; an error gives it back.
    pub fn approve(
        &self,
        tid: i32,
        approval: Approval,
        chain: &Chain,
        files: Vec<OwnedFd>,
        decided: Option<Told>,
    ) -> Result<(), (Error, Option<Told>)> {
        let mut pending = self.pending();
        if let Err(error) = self.verify.approve(tid, approval, chain) {
            return Err((error, decided));
        }
        let patient = decided.is_none();
        let entry = Pending { exec: approval.exec, since: Instant::now(), patient, _files: files, decided };
        pending.insert(tid, entry);
        Ok(())
    }

    /// Takes back what was approved as `exec`, if it is still the thread's.
    pub fn revoke(&self, tid: i32, exec: u64) {
        self.take_back(tid, |approved| approved == exec);
    }

    /// Takes back whatever is approved for a thread: it calls again, so that exec has failed.
    pub fn revoke_any(&self, tid: i32) {
        self.take_back(tid, |_| true);
    }

    // Under one lock with the look at what is approved: the next call of the thread may be approved meanwhile.
    fn take_back(&self, tid: i32, is_meant: impl Fn(u64) -> bool) {
        let unused = {
            let mut pending = self.pending();
            if !pending.exec_of(tid).is_some_and(is_meant) {
                return;
            }
            if self.verify.revoke(tid) {
                pending.take_unused(tid)
            } else {
                pending.set_used(tid);
                None
            }
        };
        if let Some(unused) = unused {
            unused.report_unseen(&self.lineage, &*self.events);
        }
    }

    /// The exec numbers that some process runs, or will run when its exec is through.
    pub fn live_images(&self) -> HashSet<u64> {
        let approved = self.pending().execs();
        self.verify.live_images().into_iter().chain(approved).collect()
    }
}

/// Decides the execs of all sandboxes of a loader. See the crate's documentation.
pub struct ExecGate {
    pub(crate) shared: Arc<Shared>,
    observer: Option<std::thread::JoinHandle<()>>,
}

impl ExecGate {
    /// Loads the BPF programs, pins them below `pin_dir` (a folder on a bpf file system, made if missing), takes over
    /// from an earlier gate that was pinned there, and starts the gate's threads.
    ///
    /// `without` is left unused, as if the kernel did not have it. `handle` is the runtime on which unanswered questions wait.
    pub fn load(
        pin_dir: &Path,
        layers: Layers,
        without: Without,
        asker: Arc<dyn Asker>,
        events: Arc<dyn EventSink>,
        handle: Handle,
    ) -> Result<Arc<Self>, Error> {
        Self::load_with_ring(pin_dir, layers, without, asker, events, handle, RING_BYTES)
    }

    /// As [`ExecGate::load`], with room for `ring_bytes` of events that wait to be read: a power of two and at least a
    /// page. An event that finds no room is lost and counted; nothing is allowed or killed because of it.
    pub fn load_with_ring(
        pin_dir: &Path,
        layers: Layers,
        without: Without,
        asker: Arc<dyn Asker>,
        events: Arc<dyn EventSink>,
        handle: Handle,
        ring_bytes: u32,
    ) -> Result<Arc<Self>, Error> {
        let verify = ExecVerify::load(Some(pin_dir), layers, without, ring_bytes)?;
        Self::start(verify, without, asker, events, handle)
    }

    fn start(
        verify: ExecVerify,
        without: Without,
        asker: Arc<dyn Asker>,
        events: Arc<dyn EventSink>,
        handle: Handle,
    ) -> Result<Arc<Self>, Error> {
        let boot_id = fs::read_to_string(BOOT_ID).map_err(Error::io("the boot has no id"))?;
        let callers = match verify.callers() {
            Ok(callers) => Some(callers),
            Err(error) => {
                tracing::info!(%error, "callers are looked at by pidfd and /proc, which takes longer");
                None
            }
        };
        let shared = Arc::new(Shared {
            verify,
            callers,
            asker,
            events: Arc::new(Order::new(events)?),
            handle,
            interruptible: without.wait_killable || !sys::knows_killable_waits(),
            lineage: Lineage::new(&boot_id),
            pending: Mutex::default(),
            sandboxes: RwLock::default(),
            stopping: AtomicBool::new(false),
        });
        let observer = observe::start(Arc::clone(&shared))?;
        Ok(Arc::new(Self { shared, observer: Some(observer) }))
    }

    /// Puts the cgroups of a sandbox under verification. From here on every exec there that was not approved is
    /// killed, so it comes before the first process is moved in, and [`ExecGate::approve_once`] before its exec.
    pub fn add_scope(&self, scope: &Scope) -> Result<(), Error> {
        let mut sandboxes = self.shared.sandboxes.write().unwrap_or_else(PoisonError::into_inner);
        if sandboxes.values().any(|known| known.scope.sandbox == scope.sandbox) {
            return Err(Error::Refused(format!("the sandbox {} has a scope already", scope.sandbox)));
        }
        for subject in &scope.subjects {
            check_depth(&subject.cgroup)?;
        }
        let index = (0..FOREIGN).find(|index| !sandboxes.contains_key(index));
        let index = index.ok_or_else(|| Error::Refused("there are too many sandboxes".into()))?;
        for (number, subject) in scope.subjects.iter().enumerate() {
            if let Err(error) = self.shared.verify.add_scope(subject.cgroup_id, index) {
                for done in &scope.subjects[..number] {
                    self.shared.verify.remove_scope(done.cgroup_id);
                }
                return Err(error);
            }
        }
        sandboxes.insert(index, Arc::new(Sandbox::new(scope.clone())));
        Ok(())
    }

    /// Puts the mount namespace of a sandbox's process under verification: whoever joins it from outside (`nsenter`)
    /// without being in the sandbox's cgroups is killed at its next exec. False: the process is in this one's own
    /// namespace, or the kernel has no id for namespaces (before 6.11), and only the cgroups are verified.
    ///
    /// # Errors
    /// The sandbox has no scope, or the process is gone.
    pub fn guard_namespace(&self, sandbox: &str, pid: i32) -> Result<bool, Error> {
        let sandboxes = self.shared.sandboxes.read().unwrap_or_else(PoisonError::into_inner);
        let known = sandboxes.iter().find(|(_, known)| known.scope.sandbox == sandbox);
        let (index, known) =
            known.ok_or_else(|| Error::Refused(format!("the sandbox {sandbox} has no scope")))?;
        let id = |path: String| {
            let file = fs::File::open(&path).map_err(Error::io(path))?;
            match sys::mount_namespace_id(file.as_fd()) {
                Ok(id) => Ok(Some(id)),
                // `ENOTTY` and `EINVAL` of a kernel that does not know the request.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)) => Ok(None),
                Err(error) => Err(Error::io("the mount namespace has no id")(error)),
            }
        };
        match (id(format!("/proc/{pid}/ns/mnt"))?, id("/proc/self/ns/mnt".into())?) {
            // Never the host's: nothing there would run any more.
            (Some(theirs), Some(own)) if theirs != own => {
                self.shared.verify.add_namespace(theirs, *index)?;
                known.namespaces.lock().unwrap_or_else(PoisonError::into_inner).push(theirs);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Puts another policy in place for a sandbox whose scope was added. Its table is used from the moment on at which
    /// the asker gives its epoch for the sandbox; until then, what it could answer is asked about.
    ///
    /// # Errors
    /// The sandbox has no scope.
    pub fn apply(&self, sandbox: &str, policy: ExecPolicy) -> Result<(), Error> {
        let known = self.known(sandbox)?;
        let mut place = known.policy.write().unwrap_or_else(PoisonError::into_inner);
        *place = Arc::new(policy.after(&place));
        Ok(())
    }

    fn known(&self, sandbox: &str) -> Result<Arc<Sandbox>, Error> {
        let sandboxes = self.shared.sandboxes.read().unwrap_or_else(PoisonError::into_inner);
        let known = sandboxes.values().find(|known| known.scope.sandbox == sandbox).map(Arc::clone);
        known.ok_or_else(|| Error::Refused(format!("the sandbox {sandbox} has no scope")))
    }

    /// Ends the verification of a sandbox. Its cgroups must be empty: what runs there later is not verified.
    pub fn remove_scope(&self, sandbox: &str) {
        self.settle();
        let mut sandboxes = self.shared.sandboxes.write().unwrap_or_else(PoisonError::into_inner);
        sandboxes.retain(|_, known| {
            if known.scope.sandbox != sandbox {
                return true;
            }
            for id in known.namespaces.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                self.shared.verify.remove_namespace(id);
            }
            for subject in &known.scope.subjects {
                self.shared.verify.remove_scope(subject.cgroup_id);
            }
            false
        });
    }

    /// Where the other gates report: what they tell comes between the execs and exits as it happened.
    pub fn events(&self) -> Arc<dyn EventSink> {
        Arc::clone(&self.shared.events) as _
    }

    /// Returns when everything that was reported so far, and what BPF has seen, was told. Blocks for some milliseconds.
    pub fn settle(&self) {
        self.shared.events.settle();
    }

    /// Allows the next exec of the thread `tid` (the host's number), if it loads exactly `file` with `argv`. For
    /// what the loader itself starts. `file` may be an `O_PATH` descriptor; it must not be a script.
    pub fn approve_once(&self, tid: i32, file: BorrowedFd<'_>, argv: &[Vec<u8>]) -> Result<(), Error> {
        let (id, _, _) = Mounts::default()
            .identify(file, std::process::id() as i32)
            .map_err(Error::io("the file to approve cannot be identified"))?;
        let mut bytes = Vec::new();
        for argument in argv {
            bytes.extend_from_slice(argument);
            bytes.push(0);
        }
        if bytes.len() > ARGV_MAX || argv.is_empty() {
            return Err(Error::Refused("an approval needs between one argument and 128 KiB of them".into()));
        }
        let exec = self.shared.lineage.number();
        let kept = file.try_clone_to_owned().map_err(Error::io("the file to approve cannot be kept open"))?;
        let name = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&kept)));
        let name = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        self.shared.lineage.insert_first(exec, &name, || self.shared.live_images());
        let approval = Approval {
            inode: id.inode,
            argv_hash: self.shared.verify.hash(&bytes),
            argv_length: bytes.len() as u64,
            cgroup: 0,
            exec,
            device: id.device,
            argc: argv.len() as u32,
            environment: None,
            cwd: None,
        };
        self.shared
            .approve(tid, approval, &Chain::new(exec, [&id]), vec![kept], None)
            .map_err(|(error, _)| error)
    }

    /// Serves the seccomp listener of a sandbox whose scope was added: execve and execveat here, the other system
    /// calls by `extra`. Runs until the last task of the filter has ended, or the result is stopped or dropped.
    pub fn serve(
        &self,
        sandbox: &str,
        listener: OwnedFd,
        extra: HashMap<i64, Arc<dyn NotifyHandler>>,
    ) -> Result<Serving, Error> {
        let known = self.known(sandbox)?;
        // One for each sandbox: what it does with its own processes can keep its tracer waiting (ptrace(2) waits for an
        // execve of the same process), and nobody else's.
        let weak = Arc::downgrade(&self.shared);
        let tracer = Tracer::start(move |tid| {
            if let Some(shared) = weak.upgrade() {
                shared.revoke_any(tid);
            }
        })?;
        let handler: Arc<dyn NotifyHandler> =
            Arc::new(ExecHandler::new(Arc::clone(&self.shared), Arc::new(tracer), known));
        let mut handlers = extra;
        handlers.insert(libc::SYS_execve, Arc::clone(&handler));
        handlers.insert(libc::SYS_execveat, handler);
        notify::serve(sandbox, listener, handlers)
            .map_err(Error::io(format!("the system calls of {sandbox} cannot be served")))
    }

    /// Says which image a process runs, and which led to it, as far as it is known.
    pub fn describe(&self, pid: i32, process: &mut pb::Process) {
        let number = self.shared.verify.image_of(pid);
        self.shared.lineage.describe(number, process);
        self.shared.lineage.describe_ancestors(number, process);
    }

    /// What the BPF programs counted since they were loaded.
    pub fn counters(&self) -> Counters {
        self.shared.verify.counters()
    }

    /// Approvals that were given and neither used nor taken back yet.
    pub fn waiting_approvals(&self) -> usize {
        let pending = self.shared.pending();
        pending.waiting().filter(|(tid, _)| self.shared.verify.is_approved(*tid)).count()
    }

    /// Removes the pins, so that the verification ends with this process. Only when no sandbox is left.
    pub fn unpin(&self) -> Result<(), Error> {
        self.shared.verify.unpin().map_err(Error::io("the pins of the exec verification cannot be removed"))
    }
}

impl Drop for ExecGate {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        if let Some(observer) = self.observer.take()
            && observer.join().is_err()
        {
            tracing::error!("the thread that reads the exec events panicked");
        }
    }
}

// The BPF program looks at this many levels; a scope below them would not be found.
fn check_depth(cgroup: &Path) -> Result<(), Error> {
    let mount = tracee::cgroup_mount();
    let mount = mount.ok_or_else(|| Error::Refused("no cgroup v2 hierarchy is mounted".into()))?;
    let below = cgroup.strip_prefix(mount).map(|below| below.components().count()).unwrap_or(usize::MAX);
    if (1..=LEVEL_MAX).contains(&below) {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "{} cannot be a scope: it must lie 1 to {LEVEL_MAX} levels below {}",
        cgroup.display(),
        mount.display()
    )))
}
