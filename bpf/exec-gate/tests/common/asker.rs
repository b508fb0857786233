//! Who is asked and who is told: they answer what the test says, and keep what they heard.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clawsec_core::ask::Progress;
use clawsec_core::{Asker, EventSink, Inquiry, pb};

use super::PATIENCE;

/// The decision that an event tells of: alone, or with the exec that came of it.
pub fn decided(event: &pb::Event) -> Option<&pb::DecisionEvent> {
    match event.kind.as_ref()? {
        pb::event::Kind::Decision(decision) => Some(decision),
        pb::event::Kind::Exec(exec) => exec.decision.as_ref(),
        _ => None,
    }
}

/// What a test says to a question.
pub type Script = dyn Fn(&pb::Question) -> pb::Decision + Send + Sync;

/// A hold that waits for the test.
pub struct Hold {
    pub question: pb::Question,
    pub decisions: tokio::sync::mpsc::UnboundedSender<pb::Decision>,
    pub progress: tokio::sync::mpsc::UnboundedReceiver<Progress>,
}

impl Hold {
    /// The facts of the image, once it stands still.
    pub fn wait_held(&mut self) -> pb::ExecAction {
        match self.next() {
            Progress::Held(facts) => *facts.expect("a held exec has facts"),
            other => panic!("{other:?}"),
        }
    }

    /// The facts of the image when it stands still. `None`: it was gone before.
    pub fn held_or_gone(&mut self) -> Option<pb::ExecAction> {
        use tokio::sync::mpsc::error::TryRecvError;
        let until = Instant::now() + PATIENCE;
        loop {
            match self.progress.try_recv() {
                Ok(Progress::Held(facts)) => return Some(*facts.expect("a held exec has facts")),
                Ok(_) | Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {}
            }
            assert!(Instant::now() < until, "no progress of a hold");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    pub fn next(&mut self) -> Progress {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Ok(progress) = self.progress.try_recv() {
                return progress;
            }
            assert!(Instant::now() < until, "no progress of a hold");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Answers a question that was left open.
    pub fn answer(&self, decision: pb::Decision) {
        let (question_id, epoch) = (self.question.id, self.question.epoch);
        self.decisions.send(pb::Decision { question_id, epoch, ..decision }).unwrap();
    }

    /// As [`Hold::answer`], for a question that may be over.
    pub fn try_answer(&self, decision: pb::Decision) {
        let (question_id, epoch) = (self.question.id, self.question.epoch);
        let _ = self.decisions.send(pb::Decision { question_id, epoch, ..decision });
    }

    pub fn decide(&self, verdict: pb::Verdict) {
        self.decisions.send(decision(verdict, "person")).unwrap();
    }
}

pub fn decision(verdict: pb::Verdict, rule: &str) -> pb::Decision {
    pb::Decision {
        verdict: verdict.into(),
        rule: rule.into(),
        layer: "test".into(),
        message: "because of the test".into(),
        cache_scope: pb::CacheScope::None.into(),
        ..Default::default()
    }
}

pub fn allow() -> pb::Decision {
    decision(pb::Verdict::Allow, "exec/allow")
}

pub fn deny() -> pb::Decision {
    decision(pb::Verdict::Deny, "exec/deny")
}

pub fn hold() -> pb::Decision {
    pb::Decision { hold_id: "h1".into(), ..decision(pb::Verdict::Hold, "exec/hold") }
}

pub struct TestAsker {
    script: Mutex<Arc<Script>>,
    next: AtomicU64,
    pub epoch: AtomicU64,
    pub questions: Mutex<Vec<pb::Question>>,
    holds: Mutex<Vec<Hold>>,
    unanswered: AtomicBool,
}

impl TestAsker {
    /// Says what the script says.
    pub fn new(script: impl Fn(&pb::Question) -> pb::Decision + Send + Sync + 'static) -> Self {
        Self {
            script: Mutex::new(Arc::new(script)),
            next: 1.into(),
            epoch: 1.into(),
            questions: Mutex::default(),
            holds: Mutex::default(),
            unanswered: AtomicBool::new(false),
        }
    }

    /// A hold that nobody took yet.
    pub fn take_hold(&self) -> Option<Hold> {
        self.holds.lock().unwrap().pop()
    }

    /// Gives no first answer any more: each question goes to the test as it is.
    pub fn keep_open(&self) {
        self.unanswered.store(true, Ordering::Relaxed);
    }

    /// What is said from now on.
    pub fn answer_with(&self, script: impl Fn(&pb::Question) -> pb::Decision + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }
}

impl Asker for TestAsker {
    fn ask(&self, mut question: pb::Question) -> Inquiry {
        question.id = self.next.fetch_add(1, Ordering::Relaxed);
        question.epoch = self.epoch.load(Ordering::Relaxed);
        let (inquiry, channel) = Inquiry::new(question.id);
        let script = Arc::clone(&self.script.lock().unwrap());
        let mut decision = script(&question);
        decision.question_id = question.id;
        decision.epoch = question.epoch;
        self.questions.lock().unwrap().push(question.clone());
        let unanswered = self.unanswered.load(Ordering::Relaxed);
        let held = unanswered || decision.verdict() == pb::Verdict::Hold;
        if !unanswered {
            channel.decisions.send(decision).unwrap();
        }
        if held {
            let (decisions, progress) = (channel.decisions, channel.progress);
            self.holds.lock().unwrap().push(Hold { question, decisions, progress });
        }
        inquiry
    }

    fn epoch(&self, _sandbox: &str) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
pub struct TestSink {
    pub events: Mutex<Vec<pb::Event>>,
    pub losses: Mutex<HashMap<&'static str, u64>>,
    /// Between which moments.
    pub spans: Mutex<Vec<(u64, u64)>>,
}

impl EventSink for TestSink {
    fn emit(&self, event: pb::Event) {
        self.events.lock().unwrap().push(event);
    }

    fn lost(&self, way: &'static str, count: u64) {
        *self.losses.lock().unwrap().entry(way).or_default() += count;
    }

    fn lost_between(&self, way: &'static str, count: u64, since_us: u64, until_us: u64) {
        self.spans.lock().unwrap().push((since_us, until_us));
        self.lost(way, count);
    }
}
