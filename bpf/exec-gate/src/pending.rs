//! Execs that were approved, until BPF has seen them.
//!
//! What was decided about an exec waits here for the event of the exec, and goes into the audit with it. Where none comes,
//! because the exec failed or its process died before, it is reported alone.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use clawsec_core::{EventSink, pb};

use crate::at_once::Told;
use crate::lineage::Lineage;

/// What was decided about an exec, for the audit.
#[derive(Debug)]
pub(crate) struct Decided {
    pub sandbox: String,
    pub subject: String,
    /// Whoever called.
    pub process: pb::Process,
    pub decision: pb::DecisionEvent,
}

impl Decided {
    /// Reports a decision that no event of an exec will carry.
    pub fn report(self, events: &dyn EventSink) {
        events.emit(pb::Event {
            sandbox: self.sandbox,
            subject: self.subject,
            process: Some(self.process),
            kind: Some(pb::event::Kind::Decision(self.decision)),
            ..Default::default()
        });
    }
}

/// An exec that was approved and has not been seen yet.
#[derive(Debug)]
pub(crate) struct Pending {
    pub exec: u64,
    pub since: Instant,
    /// It may be used much later: the thread is not calling execve yet.
    pub patient: bool,
    /// Open `O_PATH` descriptors of what was approved: while they are, no other file can get the inode number.
    pub _files: Vec<OwnedFd>,
    /// Reported with the exec. `None`: the loader started it.
    pub decided: Option<Told>,
}

impl Pending {
    /// Says that no exec came of it.
    pub fn report_unseen(self, lineage: &Lineage, events: &dyn EventSink) {
        if let Some(told) = self.decided {
            let mut decided = told.whole(lineage);
            decided.decision.exec_unseen = true;
            decided.report(events);
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct PendingExecs {
    by_thread: HashMap<i32, Pending>,
    // Whose approval is gone from the kernel's table: by the exec, or by the end of the thread.
    used: HashMap<u64, (Instant, i32, Pending)>,
}

impl PendingExecs {
    /// Adds one. The thread's former one was used.
    pub fn insert(&mut self, tid: i32, pending: Pending) {
        self.set_used(tid);
        self.by_thread.insert(tid, pending);
    }

    /// Number of the exec that is approved for a thread.
    pub fn exec_of(&self, tid: i32) -> Option<u64> {
        self.by_thread.get(&tid).map(|pending| pending.exec)
    }

    /// Takes one whose approval was taken back: it was not used.
    pub fn take_unused(&mut self, tid: i32) -> Option<Pending> {
        self.by_thread.remove(&tid)
    }

    /// The approval of a thread is gone, and nobody took it back: its event comes, or its thread is dead.
    pub fn set_used(&mut self, tid: i32) {
        if let Some(pending) = self.by_thread.remove(&tid) {
            self.used.insert(pending.exec, (Instant::now(), tid, pending));
        }
    }

    /// Takes the one whose exec was seen.
    pub fn take_seen(&mut self, tid: i32, exec: u64) -> Option<Pending> {
        if self.exec_of(tid) == Some(exec) {
            return self.by_thread.remove(&tid);
        }
        self.used.remove(&exec).map(|(_, _, pending)| pending)
    }

    /// Takes those that were used `patience` ago and were not seen, with their threads.
    pub fn take_overdue(&mut self, patience: Duration) -> Vec<(i32, Pending)> {
        let overdue = |since: &Instant| since.elapsed() > patience;
        let taken = self.used.extract_if(|_, (since, _, _)| overdue(since));
        taken.map(|(_, (_, tid, pending))| (tid, pending)).collect()
    }

    /// Those whose approval was not gone when it was looked at last, with their threads.
    pub fn waiting(&self) -> impl Iterator<Item = (i32, &Pending)> {
        self.by_thread.iter().map(|(tid, pending)| (*tid, pending))
    }

    /// The numbers of all execs that may come or have come.
    pub fn execs(&self) -> Vec<u64> {
        self.by_thread.values().map(|pending| pending.exec).chain(self.used.keys().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(exec: u64) -> Pending {
        Pending { exec, since: Instant::now(), patient: false, _files: Vec::new(), decided: None }
    }

    #[test]
    fn an_exec_is_found_by_its_number_also_after_its_thread_has_called_again() {
        let mut all = PendingExecs::default();
        all.insert(7, pending(2));
        all.insert(7, pending(4));
        assert_eq!(all.exec_of(7), Some(4));
        assert_eq!(all.take_seen(7, 2).map(|taken| taken.exec), Some(2));
        assert!(all.take_seen(7, 2).is_none());
        assert_eq!(all.take_seen(7, 4).map(|taken| taken.exec), Some(4));
        assert!(all.execs().is_empty());
    }

    #[test]
    fn what_was_used_and_not_seen_is_overdue_and_what_waits_is_not() {
        let mut all = PendingExecs::default();
        all.insert(7, pending(2));
        all.insert(8, pending(4));
        all.set_used(7);
        assert!(all.take_overdue(Duration::from_secs(60)).is_empty());
        let overdue = all.take_overdue(Duration::ZERO);
        assert_eq!(overdue.iter().map(|(tid, taken)| (*tid, taken.exec)).collect::<Vec<_>>(), [(7, 2)]);
        assert_eq!(all.waiting().map(|(tid, _)| tid).collect::<Vec<_>>(), [8]);
    }
}
