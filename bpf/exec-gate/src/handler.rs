//! Takes one call of execve from its notification to its answer.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, PoisonError};

use clawsec_core::{Scope, SubjectScope, ask, pb};
use nix::errno::Errno;

use crate::at_once::Told;
use crate::bound::Bound;
use crate::bpf::abi::{ARGV_MAX, Approval, Hashed};
use crate::bpf::lsm::Chain;
use crate::cache::is_settled;
use crate::gate::{Sandbox, Shared, Verdict};
use crate::hold::Tracer;
use crate::image::{self, Call, Image};
use crate::memory;
use crate::notify::{Notification, NotifyHandler};
use crate::pending::Decided;
use crate::resolve::{Cwd, Failure, Kind, Start};
use crate::tracee::{self, Task};
use crate::{copies, facts, reason};

/// `AT_EXECVE_CHECK` of linux/fcntl.h (6.14): nothing is executed. A kernel without it says so itself (EINVAL).
const CHECK: u64 = 0x1_0000;
const KNOWN_FLAGS: u64 = (libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW) as u64 | CHECK;

/// Answers execve and execveat of one sandbox.
#[derive(Clone)]
pub(crate) struct ExecHandler {
    pub shared: Arc<Shared>,
    pub tracer: Arc<Tracer>,
    pub sandbox: Arc<Sandbox>,
}

/// One exec that is being decided.
pub(crate) struct Request {
    pub notification: Notification,
    pub task: Task,
    pub subject: SubjectScope,
    pub image: Image,
    /// Number of the exec, if it happens, and of the image that calls.
    pub exec: u64,
    pub parent: u64,
    /// Nothing is executed: `AT_EXECVE_CHECK`, or a text that the kernel does not load.
    pub check: bool,
    /// Empty until the facts are complete, as `process` is.
    pub action: pb::ExecAction,
    pub process: pb::Process,
    /// `None`: it cannot be read, and is shown as "", or nobody needed it yet.
    pub cwd: Option<Cwd>,
    /// As it was when its names were read, for a question; `None`: nobody looked, or it is too long to be compared.
    pub environment: Option<Hashed>,
    /// The path as written, and the arguments.
    pub call: Call,
    // Keys of the verdict cache: by file, and by file, arguments and working directory. The second one is empty until the
    // facts are complete.
    keys: [Vec<u8>; 2],
    // A later change of its files shows in these. Said when they were found: what they contain is read after that.
    settled: bool,
}

impl Request {
    /// Means the caller, and can be read when it is dead.
    pub fn caller(&self) -> Option<OwnedFd> {
        self.task.pidfd.as_ref().and_then(|pidfd| pidfd.try_clone().ok())
    }
}

/// What came of carrying out an allowance.
#[derive(Debug)]
pub(crate) enum Carried {
    /// The exec goes on.
    Out,
    /// The caller is gone.
    Gone,
    /// It could not be carried out, and was refused instead.
    Refused,
}

impl NotifyHandler for ExecHandler {
    fn handle(&self, notification: Notification) {
        // A call that a signal ended is nothing to decide about; the thread may have been allowed another one since.
        if !notification.is_valid() {
            return;
        }
        // A thread that calls again has failed with what was approved before.
        self.shared.revoke_any(notification.tid);
        let Some(mut request) = self.read(notification) else { return };
        let quick = self.tabled(&mut request).or_else(|| {
            request.keys[0] = key(&request.subject, &request.image);
            self.cached(&request.keys[0])
        });
        if let Some(decision) = &quick
            && matches!(decision.verdict(), pb::Verdict::Allow | pb::Verdict::Log)
            && Bound::of(decision).is_ok_and(|bound| !bound.cwd && !bound.script)
            && !request.check
            && !self.must_stop(&request, decision)
        {
            let decision = decision.clone();
            self.allow_at_once(request, decision);
            return;
        }
        self.complete(&mut request);
        match quick.or_else(|| self.cached(&request.keys[1])) {
            Some(decision) => match decision.verdict() {
                pb::Verdict::Allow | pb::Verdict::Log if self.must_stop(&request, &decision) => {
                    let this = self.clone();
                    self.shared.handle.spawn(async move { this.allow_stopped(request, decision).await });
                }
                pb::Verdict::Allow | pb::Verdict::Log => {
                    self.allow(request, &decision);
                }
                _ => {
                    self.deny(request, &decision);
                }
            },
            None => self.ask(request),
        }
    }
}

impl ExecHandler {
    pub fn new(shared: Arc<Shared>, tracer: Arc<Tracer>, sandbox: Arc<Sandbox>) -> Self {
        Self { shared, tracer, sandbox }
    }

    // Reads the call. `None`: it was answered, or the caller is gone.
    fn read(&self, notification: Notification) -> Option<Request> {
        let tid = notification.tid;
        let verify = &self.shared.verify;
        let inspected = tracee::inspect(tid, self.shared.callers.as_ref(), |pid| verify.image_of(pid));
        let (mut task, parent) = match inspected {
            Ok(inspected) => inspected,
            Err(error) => {
                // Of a caller that is gone there is nothing to say.
                if notification.is_valid() {
                    let message = format!("the caller cannot be looked at ({error})");
                    self.refuse(notification, &mut Task::unknown(tid), &Call::unknown(), "", &message);
                }
                return None;
            }
        };
        let (start, [path, argv, _], flags) = match notification.syscall {
            libc::SYS_execve => (Start::Cwd, first_three(&notification.args), 0),
            _ => {
                let number = notification.args[0] as i32;
                let start = if number == libc::AT_FDCWD { Start::Cwd } else { Start::Fd(number) };
                (start, first_three(&notification.args[1..]), notification.args[4])
            }
        };
        let check = flags & CHECK != 0;
        // BPF-LSM would refuse a check, which has no approval.
        if flags & !KNOWN_FLAGS != 0 || (check && self.shared.verify.is_lsm_used()) {
            let _ = notification.respond_errno(libc::EINVAL);
            return None;
        }
        let (path, argv) = match memory::read_call(tid, path, argv, ARGV_MAX) {
            Ok(strings) => strings,
            Err(Errno::ESRCH) => return None,
            // As the kernel would, who reads the same.
            Err(errno @ (Errno::EFAULT | Errno::ENAMETOOLONG)) => {
                let _ = notification.respond_errno(errno as i32);
                return None;
            }
            Err(errno) => {
                let message = format!("the call cannot be read ({errno})");
                self.refuse(notification, &mut task, &Call::unknown(), "", &message);
                return None;
            }
        };
        let call = Call {
            path,
            start,
            follow: flags & libc::AT_SYMLINK_NOFOLLOW as u64 == 0,
            empty_path: flags & libc::AT_EMPTY_PATH as u64 != 0,
            argv: argv.items,
        };
        let subject = task.cgroup.and_then(|cgroup| self.sandbox.scope.subject_of(cgroup)).cloned();
        let Some(subject) = subject else {
            self.refuse(notification, &mut task, &call, "", "the process is in no subject of its sandbox");
            return None;
        };
        if argv.truncated {
            let message = "the arguments are longer than 128 KiB";
            self.refuse(notification, &mut task, &call, &subject.name, message);
            return None;
        }
        let mut image = match image::find(&self.sandbox.view, &self.sandbox.headers, task.who(), &call) {
            Ok(image) => image,
            Err(Failure::Errno(errno)) => {
                let _ = notification.respond_errno(errno as i32);
                return None;
            }
            Err(Failure::Refused(message)) => {
                self.refuse(notification, &mut task, &call, &subject.name, &message);
                return None;
            }
        };
        if image.operands == 1 && copies::is_followed_for_person(task.pid) {
            let cwd = self.sandbox.view.cwd(tid).map(|cwd| cwd.path).unwrap_or_default();
            if copies::is_decided_by_person(task.pid, &image.name, &cwd) {
                image.forget_operand();
            }
        }
        let check = check || image.is_text;
        let exec = self.shared.lineage.number();
        let settled = image.files.iter().all(|file| is_settled(&file.id));
        Some(Request {
            notification,
            task,
            subject,
            image,
            exec,
            parent,
            check,
            action: pb::ExecAction::default(),
            process: pb::Process::default(),
            cwd: None,
            environment: None,
            call,
            keys: Default::default(),
            settled,
        })
    }

    /// Whether the new image must be stopped before it runs, although it is allowed.
    pub fn must_stop(&self, request: &Request, decision: &pb::Decision) -> bool {
        !request.check && (!decision.enter_subject.is_empty() || self.needs_script(request, decision))
    }

    // Finds out what an exec that is allowed by its file alone goes without: most are, and each fact costs system calls.
    pub fn complete(&self, request: &mut Request) {
        request.task.open_pidfd();
        let lineage = &self.shared.lineage;
        let id = if request.check { String::new() } else { lineage.id(request.exec) };
        let action = facts::action(&request.call, &request.image, id);
        request.action = pb::ExecAction { check: request.check, ..action };
        let record = lineage.record(request.parent);
        request.process = facts::process(lineage, &request.task, request.parent, record.as_ref());
        let tid = request.task.tid;
        request.cwd = self.sandbox.view.cwd(tid).ok();
        let cwd = request.cwd.as_ref().map_or(&[][..], |cwd| &cwd.path);
        facts::add_cwd(&mut request.action, &request.call, &request.image, cwd);
        request.keys[1] = key_with_argv(&request.keys[0], &request.call, cwd);
    }

    fn cached(&self, key: &[u8]) -> Option<pb::Decision> {
        let epoch = self.shared.asker.epoch(&self.sandbox.scope.sandbox);
        let mut verdicts = self.sandbox.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = verdicts.get(key).filter(|verdict| verdict.epoch == epoch)?;
        // It answers no question that is open.
        Some(pb::Decision { layer: "cache".into(), question_id: 0, ..verdict.decision.clone() })
    }

    /// Keeps a decision for as much as it says it may be used again.
    pub fn remember(&self, request: &Request, decision: &pb::Decision) {
        // A key must hold all that the decision goes by; none holds the environment.
        let Ok(Bound { cwd, environment: false, script }) = Bound::of(decision) else { return };
        let key = match decision.cache_scope() {
            pb::CacheScope::File if !cwd && !script => &request.keys[0],
            pb::CacheScope::File | pb::CacheScope::FileArgv => &request.keys[1],
            pb::CacheScope::None | pb::CacheScope::Unspecified => return,
        };
        if !request.settled {
            return;
        }
        let verdict = Arc::new(Verdict { decision: decision.clone(), epoch: decision.epoch });
        let mut verdicts = self.sandbox.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        verdicts.put(key.clone(), verdict);
    }

    /// What is approved, before it is bound to more.
    pub fn approval(&self, request: &Request) -> Approval {
        let loaded = request.image.loaded().id;
        Approval {
            inode: loaded.inode,
            argv_hash: self.shared.verify.hash(&request.image.argv),
            argv_length: request.image.argv.len() as u64,
            cgroup: request.subject.cgroup_id,
            exec: request.exec,
            device: loaded.device,
            argc: request.image.argc,
            environment: None,
            cwd: None,
        }
    }

    /// Lets the exec happen, in the subject that the process is in. It enters another one at its exec event, and never
    /// here: the exec may still fail, and the other threads run until then.
    pub fn allow(&self, mut request: Request, decision: &pb::Decision) -> Carried {
        if request.action.executable_sha256.is_empty() {
            // For the audit: nothing is decided by it.
            self.show_known_digests(&mut request);
        }
        if request.check {
            return self.allow_check(request, decision);
        }
        let mut approval = self.approval(&request);
        if let Err(message) = self.bind(&mut approval, &request, decision) {
            self.deny(request, &ask::denial(decision.question_id, &message));
            return Carried::Refused;
        }
        let Request { notification, task, image, exec, parent, action, process, subject, cwd, .. } = request;
        self.shared.lineage.insert(exec, parent, &action.executable, || self.shared.live_images());
        let chain = Chain::new(exec, image.by_kernel().map(|file| &file.id));
        let files = image.files.into_iter().map(|file| file.fd).chain(cwd.map(|cwd| cwd.fd)).collect();
        // Before the answer: it is reported with the exec.
        let latency = notification.received.elapsed().as_micros() as u64;
        let scope = &self.sandbox.scope;
        let decided = decided(scope, &subject.name, action.clone(), process.clone(), decision, latency);
        let told = Some(Told::Whole(Box::new(decided)));
        if let Err((error, _)) = self.shared.approve(task.tid, approval, &chain, files, told) {
            let denial = ask::denial(decision.question_id, &error.to_string());
            self.finish_denial(notification, &task, &subject.name, action, process, &denial);
            return Carried::Refused;
        }
        match notification.respond_continue() {
            Ok(()) => Carried::Out,
            Err(_) => {
                self.shared.revoke(task.tid, exec);
                Carried::Gone
            }
        }
    }

    // Nothing runs, so nothing is approved: the kernel says whether its own rules permit it, too. Of a text it would say
    // ENOEXEC, unless it became a program meanwhile.
    fn allow_check(&self, request: Request, decision: &pb::Decision) -> Carried {
        let Request { notification, subject, action, process, image, .. } = request;
        if !notification.is_valid() {
            return Carried::Gone;
        }
        let latency = notification.received.elapsed().as_micros() as u64;
        // Before the answer: what the caller does next may be decided by another thread, and comes after it.
        self.report(&subject.name, action, process, decision, latency);
        let told = match image.is_text {
            true => notification.respond_errno(libc::ENOEXEC),
            false => notification.respond_continue(),
        };
        if told.is_ok() { Carried::Out } else { Carried::Gone }
    }

    /// Refuses the exec. False: nobody waits for it any more.
    pub fn deny(&self, request: Request, decision: &pb::Decision) -> bool {
        let Request { notification, task, subject, action, process, .. } = request;
        self.finish_denial(notification, &task, &subject.name, action, process, decision)
    }

    /// Says why, refuses the call, and reports it.
    pub fn finish_denial(
        &self,
        notification: Notification,
        task: &Task,
        subject: &str,
        action: pb::ExecAction,
        process: pb::Process,
        decision: &pb::Decision,
    ) -> bool {
        // The reason goes out first, so that it is there when the caller sees the error. It must not go to another
        // process with the same id.
        if notification.is_valid() {
            self.tell(task, &action, decision);
        }
        let latency = notification.received.elapsed().as_micros() as u64;
        // Before the answer, as in `allow_check`.
        self.report(subject, action, process, decision, latency);
        notification.respond_errno(libc::EACCES).is_ok()
    }

    /// What a caller is told of a denial.
    pub fn line(&self, action: &pb::ExecAction, decision: &pb::Decision) -> String {
        let named = if action.script.is_empty() { &action.executable } else { &action.script };
        reason::line(named.as_bytes(), &decision.rule, &decision.layer, &decision.message)
    }

    fn tell(&self, task: &Task, action: &pb::ExecAction, decision: &pb::Decision) {
        let line = self.line(action, decision);
        // Descriptors are the process's, mostly; the thread's own pidfd knows better.
        if let Some(pidfd) = &task.pidfd {
            reason::tell(pidfd.as_fd(), &self.sandbox.budget, &line);
        }
    }

    // Refuses what cannot be asked about.
    fn refuse(&self, notification: Notification, task: &mut Task, call: &Call, subject: &str, message: &str) {
        task.open_pidfd();
        let parent = self.shared.verify.image_of(task.pid);
        let lineage = &self.shared.lineage;
        let process = facts::process(lineage, task, parent, lineage.record(parent).as_ref());
        let mut denial = ask::denial(0, message);
        denial.layer = "gate".into();
        self.finish_denial(notification, task, subject, facts::unresolved(call), process, &denial);
    }

    /// Reports a decision that was carried out.
    pub fn report(
        &self,
        subject: &str,
        action: pb::ExecAction,
        process: pb::Process,
        decision: &pb::Decision,
        latency_us: u64,
    ) {
        let scope = &self.sandbox.scope;
        decided(scope, subject, action, process, decision, latency_us).report(&*self.shared.events);
    }
}

/// What was decided, for the audit.
pub(crate) fn decided(
    scope: &Scope,
    subject: &str,
    action: pb::ExecAction,
    process: pb::Process,
    decision: &pb::Decision,
    latency_us: u64,
) -> Decided {
    let decision = pb::DecisionEvent {
        verdict: decision.verdict,
        rule: decision.rule.clone(),
        layer: decision.layer.clone(),
        message: decision.message.clone(),
        latency_us,
        hold_id: decision.hold_id.clone(),
        observed: decision.observed,
        observed_rule: decision.observed_rule.clone(),
        question_id: decision.question_id,
        action: Some(pb::decision_event::Action::Exec(action)),
        enter_subject: decision.enter_subject.clone(),
        exec_unseen: false,
        cut: false,
    };
    let sandbox = scope.sandbox.clone();
    Decided { sandbox, subject: subject.to_owned(), process, decision }
}

/// Runs something that may block for some microseconds off the runtime's own threads. `None`: the runtime stops, and
/// what the closure owned was refused by being dropped.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

fn first_three(args: &[u64]) -> [u64; 3] {
    [args[0], args[1], args[2]]
}

// All that a verdict by the file alone may depend on, as bytes. A file counts with its path: one inode can have several
// names.
fn key(subject: &SubjectScope, image: &Image) -> Vec<u8> {
    let mut key = Vec::with_capacity(256);
    key.extend_from_slice(&subject.cgroup_id.to_ne_bytes());
    // Where a script was not found, or was decided about before, the files are the same.
    key.extend_from_slice(&[image.code as u8, u8::from(!image.script_unknown.is_empty())]);
    for file in &image.files {
        let id = file.id;
        key.extend_from_slice(&id.device.to_ne_bytes());
        for word in [id.inode, id.size, id.changed.0 as u64, id.modified.0 as u64] {
            key.extend_from_slice(&word.to_ne_bytes());
        }
        key.extend_from_slice(&id.changed.1.to_ne_bytes());
        key.extend_from_slice(&id.modified.1.to_ne_bytes());
        key.push(match file.kind {
            Kind::File => 0,
            Kind::Anonymous => 1,
            Kind::Deleted => 2,
        });
        key.extend_from_slice(&file.path);
        key.push(0);
    }
    key
}

fn key_with_argv(key: &[u8], call: &Call, cwd: &[u8]) -> Vec<u8> {
    let mut with_argv = key.to_vec();
    // No path is empty, so that the two kinds of key differ.
    with_argv.push(0);
    for part in call.argv.iter().map(Vec::as_slice).chain([cwd]) {
        with_argv.extend_from_slice(&(part.len() as u64).to_ne_bytes());
        with_argv.extend_from_slice(part);
    }
    with_argv
}
