//! Asking: a gate puts a question, and gets a first answer and, after a hold, a second one.
//!
//! Everything that goes wrong between gate and supervisor (no stream, time-out, a void answer) arrives here as a
//! denial with a reason. A gate therefore never has to choose what an error means.

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
