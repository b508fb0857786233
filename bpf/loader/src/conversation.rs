//! One question, from being asked to being settled.
//!
//! States: *asked* (no answer yet; the clock is the supervisor's), then *held* (a person decides; the clock is the
//! hold's deadline, and a supervisor that goes away changes nothing), then *final* (the gate carries it out).

use std::sync::Arc;
use std::time::Duration;

use clawsec_core::ask::{InquiryChannel, Progress, denial};
use clawsec_proto as pb;
use pb::loader_message::Message as ToSupervisor;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::broker::{Shared, Stream};
use crate::clock::now_us;

/// How long a supervisor that is there may take for its first answer, when the sandbox's grace is shorter. A first
/// answer is computed, never a person's: a hold is one.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long after a hold's deadline the loader denies by itself.
const AFTER_DEADLINE: Duration = Duration::from_secs(2);
/// Longest hold: `Instant` has an end, and no policy means a month.
const LONGEST_HOLD: Duration = Duration::from_secs(31 * 24 * 3600);
/// Answers of an older epoch after which a question is denied.
const VOID_ANSWERS: u32 = 3;
/// Streams on which an unanswered question is put. One that ends every supervisor it meets must end itself.
const STREAMS: u32 = 5;
/// How long a gate may take to say that it carried out the decision on a hold.
const SETTLE_WITHIN: Duration = Duration::from_secs(30);

/// What reaches a conversation from outside of its gate.
#[derive(Debug)]
pub enum Input {
    /// The supervisor's decision.
    Decision(pb::Decision),
    /// The sandbox is being taken down, with one sentence why.
    Close(String),
}

#[derive(Debug)]
enum Phase {
    Asked {
        /// Denied then.
        until: Instant,
        /// What `until` was made of, for the sentence.
        limit: Duration,
    },
    Held {
        hold_id: String,
        until: Instant,
        /// The question was put again since: the supervisor may confirm the hold it does not remember.
        put_again: bool,
    },
}

/// What becomes of a decision.
enum Next {
    /// Go on waiting.
    Wait,
    /// Tell the gate, and end.
    End(Box<pb::Decision>),
}

impl Next {
    fn end(decision: pb::Decision) -> Self {
        Self::End(Box::new(decision))
    }
}

/// A question that is being decided.
#[derive(Debug)]
pub struct Conversation {
    shared: Arc<Shared>,
    question: pb::Question,
    gate: InquiryChannel,
    inbox: mpsc::UnboundedReceiver<Input>,
    stream: watch::Receiver<Option<Stream>>,
    grace: Duration,
    phase: Phase,
    streams: u32,
    void_answers: u32,
}

impl Conversation {
    /// Puts the question, at once and on the caller's thread: another one would have to be woken for it. Whatever is
    /// answered waits in the inbox until [`Conversation::run`].
    pub fn begin(
        shared: Arc<Shared>,
        question: pb::Question,
        gate: InquiryChannel,
        inbox: mpsc::UnboundedReceiver<Input>,
        stream: watch::Receiver<Option<Stream>>,
        supervisor_grace_ms: u32,
    ) -> Self {
        let grace = Duration::from_millis(supervisor_grace_ms.into());
        let mut conversation = Self {
            shared,
            question,
            gate,
            inbox,
            stream,
            grace,
            phase: Phase::Asked { until: Instant::now() + grace, limit: grace },
            streams: 0,
            void_answers: 0,
        };
        conversation.stream.mark_unchanged();
        // The first stream is not one too many.
        let _ = conversation.stream_changed();
        conversation
    }

    /// Sees the question to its end.
    pub async fn run(mut self) {
        self.converse().await;
        self.shared.finished(self.question.id);
    }

    async fn converse(&mut self) {
        loop {
            let until = self.until();
            let next = tokio::select! {
                biased;
                input = self.inbox.recv() => match input {
                    Some(Input::Decision(decision)) => self.decided(decision),
                    Some(Input::Close(why)) => Next::end(self.deny(&why)),
                    None => Next::end(self.deny("the loader is stopping")),
                },
                progress = self.gate.progress.recv() => match progress {
                    Some(Progress::Held(facts)) => self.engaged(facts.map(|facts| *facts)),
                    Some(Progress::Gone(why)) => return self.gone(why),
                    Some(Progress::Settled(..)) | None => return self.gone("the request ended".into()),
                },
                changed = self.stream.changed() => match changed {
                    Ok(()) => self.stream_changed().map_or(Next::Wait, Next::end),
                    Err(_) => Next::end(self.deny("the loader is stopping")),
                },
                () = tokio::time::sleep_until(until) => Next::end(self.expired()),
            };
            if let Next::End(decision) = next {
                return self.end(*decision).await;
            }
        }
    }

    fn until(&self) -> Instant {
        match &self.phase {
            Phase::Asked { until, .. } | Phase::Held { until, .. } => *until,
        }
    }

    fn deny(&self, why: &str) -> pb::Decision {
        pb::Decision { hold_id: self.hold_id().to_owned(), ..denial(self.question.id, why) }
    }

    fn hold_id(&self) -> &str {
        match &self.phase {
            Phase::Asked { .. } => "",
            Phase::Held { hold_id, .. } => hold_id,
        }
    }

    /// A stream came or went. The question is put to one that came; `Some` when that was done too often.
    fn stream_changed(&mut self) -> Option<pb::Decision> {
        let there = self.stream.borrow_and_update().is_some();
        if let Phase::Asked { until, limit } = &mut self.phase {
            *limit = if there { self.grace.max(ANSWER_WITHIN) } else { self.grace };
            *until = Instant::now() + *limit;
            if there {
                self.streams += 1;
            }
        }
        if !there {
            return None;
        }
        if self.streams > STREAMS {
            let why = format!("{STREAMS} supervisors in a row ended before they answered");
            return Some(self.deny(&why));
        }
        let again = self.streams > 1 || matches!(self.phase, Phase::Held { .. });
        self.put(again);
        None
    }

    fn put(&mut self, again: bool) {
        self.question.resent |= again;
        self.question.epoch = self.shared.epoch(&self.question.sandbox);
        if let Phase::Held { hold_id, put_again, .. } = &mut self.phase {
            self.question.hold_id.clone_from(hold_id);
            *put_again = true;
        }
        self.shared.put(self.question.clone());
    }

    fn decided(&mut self, decision: pb::Decision) -> Next {
        let epoch = self.shared.epoch(&self.question.sandbox);
        if epoch == 0 {
            return Next::end(self.deny("the sandbox is being taken down"));
        }
        if decision.epoch < epoch {
            self.void_answers += 1;
            if self.void_answers > VOID_ANSWERS {
                return Next::end(self.deny(&format!(
                    "{} answers in a row were made under an older policy than epoch {epoch}",
                    self.void_answers
                )));
            }
            self.put(matches!(self.phase, Phase::Held { .. }));
            return Next::Wait;
        }
        match decision.verdict() {
            pb::Verdict::Hold => self.hold(decision),
            pb::Verdict::Allow | pb::Verdict::Log | pb::Verdict::Deny => {
                Next::end(pb::Decision { hold_id: self.hold_id().to_owned(), ..decision })
            }
            pb::Verdict::Ask | pb::Verdict::Unspecified => {
                Next::end(self.deny("the supervisor's answer was not a verdict"))
            }
        }
    }

    fn hold(&mut self, decision: pb::Decision) -> Next {
        if decision.hold_id.is_empty() {
            return Next::end(self.deny("the supervisor's hold had no id"));
        }
        let left = Duration::from_micros(decision.deadline_us.saturating_sub(now_us()));
        let until = Instant::now() + left.min(LONGEST_HOLD) + AFTER_DEADLINE;
        match &mut self.phase {
            Phase::Asked { .. } => {
                self.phase = Phase::Held { hold_id: decision.hold_id.clone(), until, put_again: false };
                // A closed channel shows as `None` in the progress.
                let _ = self.gate.decisions.send(decision);
                Next::Wait
            }
            // A supervisor that started after the hold answers the question it was sent with the same hold.
            Phase::Held { hold_id, until: held_until, put_again }
                if *put_again && *hold_id == decision.hold_id =>
            {
                *put_again = false;
                *held_until = until;
                Next::Wait
            }
            Phase::Held { .. } => Next::end(self.deny("the supervisor answered a hold with another hold")),
        }
    }

    /// The action stands still. What it really is replaces what was asked.
    fn engaged(&mut self, facts: Option<pb::ExecAction>) -> Next {
        if self.hold_id().is_empty() {
            tracing::error!(question = self.question.id, "a gate held what nobody told it to hold");
            return Next::end(self.deny("the gate held the action without being told to"));
        }
        if let Some(exec) = &facts {
            self.question.action = Some(pb::question::Action::Exec(exec.clone()));
        }
        // A supervisor that is away gets the question with the hold id instead.
        let _ = self.shared.send(ToSupervisor::Held(pb::Held {
            question_id: self.question.id,
            hold_id: self.hold_id().to_owned(),
            exec: facts,
        }));
        Next::Wait
    }

    fn expired(&self) -> pb::Decision {
        match &self.phase {
            Phase::Asked { limit, .. } => {
                self.deny(&format!("the supervisor did not answer within {} ms", limit.as_millis()))
            }
            Phase::Held { .. } => self.deny("the hold expired"),
        }
    }

    fn gone(&self, why: String) {
        let gone = ToSupervisor::RequesterGone(pb::RequesterGone {
            question_id: self.question.id,
            hold_id: self.hold_id().to_owned(),
            why,
        });
        match &self.phase {
            Phase::Asked { .. } => drop(self.shared.send(gone)),
            Phase::Held { .. } => self.shared.send_end(gone),
        }
    }

    /// Gives the gate its final decision and, after a hold, tells the supervisor how that went.
    async fn end(&mut self, decision: pb::Decision) {
        let verdict = decision.verdict();
        let by_loader = decision.layer == "loader";
        let message = decision.message.clone();
        let arrived = Instant::now();
        let _ = self.gate.decisions.send(decision);
        if let Phase::Asked { .. } = self.phase {
            if by_loader {
                // So that the supervisor stops to think about it.
                self.gone(format!("the loader denied it: {message}"));
            }
            return;
        }
        let resumed_us = loop {
            let progress = tokio::time::timeout(SETTLE_WITHIN, self.gate.progress.recv()).await;
            match progress {
                // Crossed with the decision.
                Ok(Some(Progress::Held(_))) => {}
                Ok(Some(Progress::Gone(why))) => return self.gone(why),
                Ok(Some(Progress::Settled(_, resumed_us))) => break resumed_us,
                Ok(None) => break u64::try_from(arrived.elapsed().as_micros()).unwrap_or(u64::MAX),
                Err(_) => {
                    let why = "the gate did not say whether it carried the decision out";
                    tracing::error!(question = self.question.id, "{why}");
                    return self.gone(why.into());
                }
            }
        };
        self.shared.send_end(ToSupervisor::Settled(pb::Settled {
            question_id: self.question.id,
            hold_id: self.hold_id().to_owned(),
            verdict: verdict.into(),
            resumed_us,
        }));
    }
}
