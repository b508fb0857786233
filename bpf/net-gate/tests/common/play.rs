//! Stand-ins for the supervisor: one that answers as the test says, and one that keeps events.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use clawsec_core::ask::Progress;
use clawsec_core::{Asker, EventSink, Inquiry, InquiryChannel, pb};
use tokio::sync::mpsc::error::TryRecvError;

/// Answers questions by the test's rules. A question without an answer stays open until the test takes it.
#[derive(Default)]
pub struct Script {
    next: AtomicU64,
    epoch: AtomicU64,
    answers: Mutex<Vec<pb::Decision>>,
    open: Mutex<Vec<(pb::Question, InquiryChannel)>>,
    pub asked: Mutex<Vec<pb::Question>>,
}

impl Script {
    /// Every question from here on gets these decisions, in this order.
    pub fn answer(&self, decisions: Vec<pb::Decision>) {
        *self.answers.lock().unwrap() = decisions;
    }

    /// The oldest question that the test has not taken.
    pub fn take(&self) -> (pb::Question, InquiryChannel) {
        super::until("a question", || {
            let mut open = self.open.lock().unwrap();
            (!open.is_empty()).then(|| open.remove(0))
        })
    }

    pub fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    pub fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::SeqCst);
    }
}

/// What the gate tells next about an inquiry; `None` when it has dropped it. Panics after 10 s.
pub fn progress(channel: &mut InquiryChannel) -> Option<Progress> {
    super::until("news of the inquiry", || match channel.progress.try_recv() {
        Ok(progress) => Some(Some(progress)),
        Err(TryRecvError::Disconnected) => Some(None),
        Err(TryRecvError::Empty) => None,
    })
}

/// A decision with this verdict.
pub fn decision(verdict: pb::Verdict) -> pb::Decision {
    pb::Decision {
        verdict: verdict.into(),
        rule: "network/asked".into(),
        layer: "person".into(),
        message: "a person said so".into(),
        hold_id: if verdict == pb::Verdict::Hold { "hold-1".into() } else { String::new() },
        ..Default::default()
    }
}

impl Asker for Script {
    fn ask(&self, mut question: pb::Question) -> Inquiry {
        question.id = self.next.fetch_add(1, Ordering::SeqCst) + 1;
        let (inquiry, channel) = Inquiry::new(question.id);
        self.asked.lock().unwrap().push(question.clone());
        for decision in self.answers.lock().unwrap().iter() {
            let _ = channel.decisions.send(decision.clone());
        }
        self.open.lock().unwrap().push((question, channel));
        inquiry
    }

    fn epoch(&self, _sandbox: &str) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }
}

/// Keeps events.
#[derive(Default)]
pub struct Events {
    kept: Mutex<Vec<pb::Event>>,
    pub lost: Mutex<Vec<(&'static str, u64)>>,
}

impl Events {
    pub fn decisions(&self) -> Vec<(pb::Event, pb::DecisionEvent)> {
        let kept = self.kept.lock().unwrap();
        let decision = |event: &pb::Event| match &event.kind {
            Some(pb::event::Kind::Decision(decision)) => Some((event.clone(), decision.clone())),
            _ => None,
        };
        kept.iter().filter_map(decision).collect()
    }
}

impl EventSink for Events {
    fn emit(&self, event: pb::Event) {
        self.kept.lock().unwrap().push(event);
    }

    fn lost(&self, way: &'static str, count: u64) {
        self.lost.lock().unwrap().push((way, count));
    }
}
