//! Asking: a gate puts a question, and gets a first answer and, after a hold, a second one.
//!
//! Everything that goes wrong between gate and supervisor (no stream, time-out, a void answer) arrives here as a
//! denial with a reason. A gate therefore never has to choose what an error means.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use clawsec_proto as pb;
use tokio::sync::mpsc;

/// Puts questions to whoever decides. One implementation talks to the supervisor; tests script their own.
pub trait Asker: Send + Sync + 'static {
    /// Starts an inquiry. The asker fills `id`, `asked_us` and `epoch` of the question.
    fn ask(&self, question: pb::Question) -> Inquiry;

    /// Epoch of the sandbox's tables now. A verdict cached under another epoch must not be used.
    fn epoch(&self, sandbox: &str) -> u64;
}

/// What a gate does now.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Let it happen. `LOG` verdicts are allowances too.
    Allow(pb::Decision),
    /// Refuse it, with `decision.message` as the reason.
    Deny(pb::Decision),
    /// Stop it where it is, call [`Inquiry::held`], and await the next outcome, which is never `Hold`.
    Hold(pb::Decision),
}

/// What a gate tells the asker about an inquiry that is under way.
#[derive(Debug, Clone)]
pub enum Progress {
    /// The action stands still; for an exec, with the facts of the real new image.
    Held(Option<Box<pb::ExecAction>>),
    /// The requester is gone: nothing is left to decide.
    Gone(String),
    /// The final verdict was carried out, this many microseconds after it arrived.
    Settled(pb::Verdict, u64),
}

/// The asker's side of an [`Inquiry`].
#[derive(Debug)]
pub struct InquiryChannel {
    /// Where decisions go in. Dropping it without a final decision is a denial.
    pub decisions: mpsc::UnboundedSender<pb::Decision>,
    /// Where the gate's progress comes out. It closes when the gate drops the inquiry.
    pub progress: mpsc::UnboundedReceiver<Progress>,
}

/// A question that is being decided. Dropping it before a final outcome tells the asker that the requester is gone.
#[derive(Debug)]
pub struct Inquiry {
    /// Id of the question.
    pub question_id: u64,
    decisions: mpsc::UnboundedReceiver<pb::Decision>,
    progress: mpsc::UnboundedSender<Progress>,
    held: bool,
    finished: bool,
}

impl Inquiry {
    /// Makes both sides of an inquiry.
    pub fn new(question_id: u64) -> (Self, InquiryChannel) {
        let (decision_tx, decisions) = mpsc::unbounded_channel();
        let (progress, progress_rx) = mpsc::unbounded_channel();
        let inquiry = Self { question_id, decisions, progress, held: false, finished: false };
        (inquiry, InquiryChannel { decisions: decision_tx, progress: progress_rx })
    }

    /// Waits for the next outcome. The asker has the deadline; a closed channel is a denial. Cancel-safe.
    pub async fn next(&mut self) -> Outcome {
        let decision = self.decisions.recv().await;
        self.classify(decision)
    }

    /// As [`Inquiry::next`], for threads that are not part of the runtime.
    pub fn blocking_next(&mut self) -> Outcome {
        let decision = self.decisions.blocking_recv();
        self.classify(decision)
    }

    /// As [`Inquiry::blocking_next`], for at most `within`. `None`: there is no answer yet; nothing is lost by having
    /// waited.
    pub fn blocking_next_within(&mut self, within: Duration) -> Option<Outcome> {
        let until = Instant::now() + within;
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(outcome) = pin!(self.next()).poll(&mut context) {
                return Some(outcome);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            // It may return too early; then the answer is looked for once more.
            thread::park_timeout(left);
        }
    }

    /// Says that the action stands still (after `Outcome::Hold`).
    pub fn engaged(&self, facts: Option<pb::ExecAction>) {
        // A closed channel means that the asker is gone; the next outcome will say so.
        let _ = self.progress.send(Progress::Held(facts.map(Box::new)));
    }

    /// Ends the inquiry because the requester is gone.
    pub fn gone(mut self, why: impl Into<String>) {
        self.finished = true;
        let _ = self.progress.send(Progress::Gone(why.into()));
    }

    /// Ends the inquiry: the final verdict was carried out, `resumed_us` microseconds after it arrived.
    pub fn settled(mut self, verdict: pb::Verdict, resumed_us: u64) {
        self.finished = true;
        let _ = self.progress.send(Progress::Settled(verdict, resumed_us));
    }

    fn classify(&mut self, decision: Option<pb::Decision>) -> Outcome {
        let Some(decision) = decision else {
            self.finished = true;
            return Outcome::Deny(denial(self.question_id, "the loader is stopping"));
        };
        match decision.verdict() {
            pb::Verdict::Allow | pb::Verdict::Log => {
                self.finished = true;
                Outcome::Allow(decision)
            }
            pb::Verdict::Hold if !self.held => {
                self.held = true;
                Outcome::Hold(decision)
            }
            // A second hold, ASK and UNSPECIFIED are not answers.
            pb::Verdict::Hold | pb::Verdict::Deny | pb::Verdict::Ask | pb::Verdict::Unspecified => {
                self.finished = true;
                Outcome::Deny(decision)
            }
        }
    }
}

// Wakes a thread that waits for an answer. A timer of the runtime would wake a thread of the runtime to be set.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Drop for Inquiry {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.progress.send(Progress::Gone("the request was withdrawn".into()));
        }
    }
}

/// The decision on a hold, with what only the first answer said: the hold's id, and what was observed.
pub fn after_hold(first: &pb::Decision, mut last: pb::Decision) -> pb::Decision {
    if last.hold_id.is_empty() {
        last.hold_id.clone_from(&first.hold_id);
    }
    if last.observed() == pb::Verdict::Unspecified {
        last.observed = first.observed;
        last.observed_rule.clone_from(&first.observed_rule);
    }
    last
}

/// A denial that the loader makes by itself.
pub fn denial(question_id: u64, message: &str) -> pb::Decision {
    pb::Decision {
        question_id,
        verdict: pb::Verdict::Deny.into(),
        rule: "loader".into(),
        layer: "loader".into(),
        message: message.into(),
        cache_scope: pb::CacheScope::None.into(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(5);
    const PATIENCE: Duration = Duration::from_secs(10);

    fn allowed() -> pb::Decision {
        pb::Decision { verdict: pb::Verdict::Allow.into(), ..Default::default() }
    }

    #[test]
    fn who_waits_a_moment_gets_the_answer_that_comes_meanwhile_also_from_another_thread() {
        let (mut inquiry, gate) = Inquiry::new(1);
        let answering = thread::spawn(move || {
            thread::sleep(SOON);
            gate.decisions.send(allowed()).unwrap();
            gate
        });
        assert!(matches!(inquiry.blocking_next_within(PATIENCE), Some(Outcome::Allow(_))));
        answering.join().unwrap();
    }

    #[test]
    fn who_waited_in_vain_loses_nothing() {
        let (mut inquiry, gate) = Inquiry::new(1);
        assert!(inquiry.blocking_next_within(SOON).is_none());
        gate.decisions.send(allowed()).unwrap();
        assert!(matches!(inquiry.blocking_next_within(Duration::ZERO), Some(Outcome::Allow(_))));
    }

    #[test]
    fn who_is_not_answered_any_more_is_denied_at_once() {
        let (mut inquiry, gate) = Inquiry::new(1);
        drop(gate);
        assert!(matches!(inquiry.blocking_next_within(PATIENCE), Some(Outcome::Deny(_))));
    }
}
