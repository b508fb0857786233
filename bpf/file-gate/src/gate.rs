//! Asking about opens, event by event.

use crate::cache::{Cache, Key};
use crate::group::Group;
use clawsec_core::who::{self, Describe};
use clawsec_core::{Asker, EventSink, Outcome, Scope, ask, pb, sys};
use nix::sys::fanotify::{FanotifyEvent, MaskFlags};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Opens of one sandbox that may wait at the same time; one more waits in the kernel's queue.
const MAX_OPEN_QUESTIONS: usize = 4096;

/// Why guards could not be set.
#[derive(Debug, thiserror::Error)]
pub enum FileGateError {
    /// The kernel refused the fanotify group.
    #[error(
        "the kernel refused a fanotify group that asks before opens: {0}; the kernel needs CONFIG_FANOTIFY_ACCESS_PERMISSIONS and the loader CAP_SYS_ADMIN"
    )]
    Group(#[source] std::io::Error),
    /// A guarded path does not exist in the sandbox, or is not a mount of its own.
    #[error("cannot guard {path} in sandbox {sandbox}: {why}")]
    Mark {
        /// The path as the sandbox sees it.
        path: String,
        /// The sandbox.
        sandbox: String,
        /// What was wrong.
        why: String,
    },
}

/// Makes guards for sandboxes.
pub struct FileGate {
    asker: Arc<dyn Asker>,
    events: Arc<dyn EventSink>,
    describe: Arc<dyn Describe>,
}

/// The guards of one sandbox. Dropping it lets every open through, unless there is a [`SandboxFiles::keeper`]: drop it
/// only when the sandbox is gone.
pub struct SandboxFiles {
    task: JoinHandle<()>,
    sandbox: Arc<Sandbox>,
}

impl SandboxFiles {
    /// While this is open, opens of guarded files wait even when nobody is left to answer: the kernel lets them through
    /// when the last descriptor of the fanotify group is closed, such as by the end of this process. For a process that
    /// outlives all that is guarded, and that nobody can take it from: whoever has it can answer.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn keeper(&self) -> io::Result<OwnedFd> {
        self.sandbox.group.get_ref().as_fd().try_clone_to_owned()
    }
}

impl fmt::Debug for SandboxFiles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SandboxFiles").field("scope", &self.sandbox.scope).finish_non_exhaustive()
    }
}

impl Drop for SandboxFiles {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Sandbox {
    scope: Scope,
    group: AsyncFd<Group>,
    cache: Mutex<Cache>,
    slots: Arc<Semaphore>,
    asker: Arc<dyn Asker>,
    events: Arc<dyn EventSink>,
    describe: Arc<dyn Describe>,
}

impl FileGate {
    /// A gate that asks `asker` and reports to `events`.
    pub fn new(asker: Arc<dyn Asker>, events: Arc<dyn EventSink>, describe: Arc<dyn Describe>) -> Self {
        Self { asker, events, describe }
    }

    /// Guards the paths of `guards` with `open` set, as the process `init_pid` sees them. To be called from the
    /// runtime, after the sandbox's mounts exist and before its first instruction. `None` when there is none to guard.
    ///
    /// # Errors
    /// Any guard that cannot be set; then none is.
    pub fn attach(
        &self,
        scope: &Scope,
        init_pid: i32,
        guards: &[pb::FileGuard],
    ) -> Result<Option<SandboxFiles>, FileGateError> {
        if let Some(guard) = guards.iter().find(|guard| guard.names) {
            return Err(FileGateError::Mark {
                path: guard.path.clone(),
                sandbox: scope.sandbox.clone(),
                why: "this loader cannot ask about deletes, renames, links and truncates; deny them instead"
                    .into(),
            });
        }
        let open: Vec<_> = guards.iter().filter(|guard| guard.open).collect();
        if open.is_empty() {
            return Ok(None);
        }
        let group = Group::new().map_err(FileGateError::Group)?;
        for guard in open {
            let fail = |why: String| FileGateError::Mark {
                path: guard.path.clone(),
                sandbox: scope.sandbox.clone(),
                why,
            };
            let path = inside(init_pid, &guard.path).map_err(&fail)?;
            group.guard_mount(&path).map_err(|error| fail(error.to_string()))?;
        }
        let group = sys::watch(group).map_err(FileGateError::Group)?;
        let sandbox = Arc::new(Sandbox {
            scope: scope.clone(),
            group,
            cache: Mutex::default(),
            slots: Arc::new(Semaphore::new(MAX_OPEN_QUESTIONS)),
            asker: Arc::clone(&self.asker),
            events: Arc::clone(&self.events),
            describe: Arc::clone(&self.describe),
        });
        let task = tokio::spawn(Arc::clone(&sandbox).run());
        Ok(Some(SandboxFiles { task, sandbox }))
    }
}

/// The path below /proc/PID/root, refused unless it is a mount point of its own there: a mark on a larger mount
/// would ask about files that no rule names, and one on another mount would miss them.
fn inside(init_pid: i32, path: &str) -> Result<PathBuf, String> {
    let mountinfo =
        fs::read_to_string(format!("/proc/{init_pid}/mountinfo")).map_err(|error| error.to_string())?;
    // proc_pid_mountinfo(5): field 5 is the mount point, relative to the process's root, octal-escaped.
    let own =
        mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).any(|point| unescape(point) == path);
    if !own {
        return Err("it is not a mount of its own there, so it cannot be guarded alone".into());
    }
    Ok(Path::new(&format!("/proc/{init_pid}/root")).join(path.trim_start_matches('/')))
}

/// Undoes the octal escapes of mountinfo (space, tab, newline, backslash).
fn unescape(point: &str) -> String {
    point.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

impl Sandbox {
    async fn run(self: Arc<Self>) {
        loop {
            let Ok(mut ready) = self.group.readable().await else { return };
            match self.group.get_ref().read() {
                Ok(events) if events.is_empty() => ready.clear_ready(),
                Ok(events) => {
                    for event in events {
                        self.take(event).await;
                    }
                }
                Err(error) => {
                    // The openers stay stopped, which is the safe side; the loop goes on with the next event.
                    tracing::error!(sandbox = %self.scope.sandbox, %error, "cannot read fanotify events");
                    ready.clear_ready();
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            }
        }
    }

    async fn take(self: &Arc<Self>, event: FanotifyEvent) {
        if event.mask().contains(MaskFlags::FAN_Q_OVERFLOW) {
            self.events.lost("fanotify-overflow", 1);
            return;
        }
        let pid = event.pid();
        let Some(object) = event.fd().and_then(|fd| fd.try_clone_to_owned().ok()) else {
            self.events.lost("fanotify-no-descriptor", 1);
            return;
        };
        let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return };
        let sandbox = Arc::clone(self);
        // `event` goes along: its own descriptor number is the key of the answer, and dropping it closes that.
        tokio::spawn(async move {
            sandbox.decide(event, pid, File::from(object)).await;
            drop(slot);
        });
    }

    async fn decide(&self, event: FanotifyEvent, pid: i32, object: File) {
        let since = Instant::now();
        let Some(key) = event.fd() else { return };
        let Some(subject) = who::subject_of(&self.scope, pid) else {
            // Nobody of the sandbox: the loader's own look through /proc/PID/root, or a process that left its cgroup.
            let own = u32::try_from(pid).is_ok_and(|pid| pid == std::process::id());
            self.answer(key, own);
            return;
        };
        let Ok(metadata) = object.metadata() else {
            self.answer(key, false);
            return;
        };
        let path = fs::read_link(format!("/proc/self/fd/{}", object.as_raw_fd()))
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default();
        let action = pb::FileAction {
            operation: pb::FileOperation::Open.into(),
            path,
            target_path: String::new(),
            file_id: format!("{}:{}", metadata.dev(), metadata.ino()),
            owner_uid: metadata.uid(),
        };
        let process = self.describe.describe(pid);
        let name = self.scope.sandbox.as_str();
        let cache_key = Key::new(&subject.name, &action.path, &metadata);
        let epoch = self.asker.epoch(name);
        let cached = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(epoch, &cache_key);
        if let Some(mut decision) = cached {
            decision.layer = "cache".into();
            self.answer(key, allows(&decision));
            self.report(&subject.name, process, action, &decision, since, 0);
            return;
        }
        let mut inquiry = self.asker.ask(pb::Question {
            sandbox: name.to_owned(),
            subject: subject.name.clone(),
            process: Some(process.clone()),
            action: Some(pb::question::Action::File(action.clone())),
            ..Default::default()
        });
        let question_id = inquiry.question_id;
        let mut outcome = inquiry.next().await;
        let mut first = None;
        if let Outcome::Hold(decision) = &outcome {
            first = Some(decision.clone());
            inquiry.engaged(None);
            tokio::select! {
                answer = inquiry.next() => outcome = answer,
                () = ended(pid) => {
                    self.answer(key, false);
                    inquiry.gone("the process that opened the file has ended");
                    return;
                }
            }
        }
        let decided = Instant::now();
        let (allowed, decision) = match outcome {
            Outcome::Allow(decision) => (true, decision),
            Outcome::Deny(decision) | Outcome::Hold(decision) => (false, decision),
        };
        // Before the answer: the opener's next open comes right after it.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).put(epoch, cache_key, &decision);
        self.answer(key, allowed);
        let resumed = u64::try_from(decided.elapsed().as_micros()).unwrap_or(u64::MAX);
        inquiry.settled(if allowed { pb::Verdict::Allow } else { pb::Verdict::Deny }, resumed);
        let decision = match &first {
            Some(first) => ask::after_hold(first, decision),
            None => decision,
        };
        self.report(&subject.name, process, action, &decision, since, question_id);
    }

    fn answer(&self, event: std::os::fd::BorrowedFd<'_>, allowed: bool) {
        if let Err(error) = self.group.get_ref().answer(event, allowed) {
            // The opener stays stopped: no access, and said.
            tracing::error!(sandbox = %self.scope.sandbox, %error, "cannot answer a fanotify event");
        }
    }

    fn report(
        &self,
        subject: &str,
        process: pb::Process,
        action: pb::FileAction,
        decision: &pb::Decision,
        since: Instant,
        question_id: u64,
    ) {
        self.events.emit(pb::Event {
            sandbox: self.scope.sandbox.clone(),
            subject: subject.to_owned(),
            process: Some(process),
            kind: Some(pb::event::Kind::Decision(pb::DecisionEvent {
                action: Some(pb::decision_event::Action::File(action)),
                verdict: decision.verdict,
                rule: decision.rule.clone(),
                layer: decision.layer.clone(),
                message: decision.message.clone(),
                latency_us: u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX),
                hold_id: decision.hold_id.clone(),
                observed: decision.observed,
                observed_rule: decision.observed_rule.clone(),
                question_id,
                ..Default::default()
            })),
            ..Default::default()
        });
    }
}

fn allows(decision: &pb::Decision) -> bool {
    matches!(decision.verdict(), pb::Verdict::Allow | pb::Verdict::Log)
}

/// Returns when the process has ended (pidfd_open(2) polls readable). Never returns if it cannot be watched: the
/// hold's own deadline then ends the wait.
async fn ended(pid: i32) {
    let Some(fd) = sys::pidfd_open(pid).and_then(sys::watch).ok() else {
        return std::future::pending().await;
    };
    let _ = fd.readable().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape("/a\\040b"), "/a b");
        assert_eq!(unescape("/a\\134b"), "/a\\b");
        assert_eq!(unescape("/plain"), "/plain");
    }

    #[test]
    fn a_path_that_is_no_mount_of_its_own_is_refused() {
        let pid = i32::try_from(std::process::id()).expect("pid");
        assert!(inside(pid, "/proc").is_ok());
        assert!(inside(pid, "/proc/self").is_err());
    }
}
