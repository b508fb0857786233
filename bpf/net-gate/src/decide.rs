//! From a ruling to a final verdict: by the row itself, an answer that is known, or a question.

use std::time::Instant;

use clawsec_core::{Inquiry, Outcome};
use clawsec_proto as pb;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::report;
use crate::request::Sight;
use crate::shared::Asked;
use crate::story::Story;
use crate::table::Ruling;

/// The end of deciding.
#[derive(Debug)]
pub(crate) struct Final {
    pub(crate) verdict: pb::Verdict,
    pub(crate) rule: String,
    pub(crate) layer: String,
    pub(crate) message: String,
    pub(crate) hold_id: String,
    pub(crate) observed: pb::Verdict,
    /// The rule that would have decided, with `observed`.
    pub(crate) observed_rule: String,
    pub(crate) question_id: u64,
    /// It was an answer, not a row.
    pub(crate) asked: bool,
    /// The hold that waits to be told what came of it.
    pub(crate) hold: Option<Hold>,
}

/// A hold that was decided but not yet carried out.
#[derive(Debug)]
pub(crate) struct Hold {
    inquiry: Inquiry,
    decided: Instant,
}

impl Hold {
    /// The verdict was carried out.
    pub(crate) fn settled(self, verdict: pb::Verdict) {
        let microseconds = u64::try_from(self.decided.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.inquiry.settled(verdict, microseconds);
    }
}

/// The client has hung up while it waited.
#[derive(Debug)]
pub(crate) struct Gone {
    pub(crate) hold_id: String,
    pub(crate) question_id: u64,
}

impl Final {
    /// A decision of the gate itself.
    pub(crate) fn gate(verdict: pb::Verdict, rule: &str, message: &str) -> Self {
        Self {
            verdict,
            rule: rule.to_owned(),
            layer: "gate".into(),
            message: message.to_owned(),
            hold_id: String::new(),
            observed: pb::Verdict::Unspecified,
            observed_rule: String::new(),
            question_id: 0,
            asked: false,
            hold: None,
        }
    }

    fn answer(verdict: pb::Verdict, decision: pb::Decision, question_id: u64, hold: Option<Hold>) -> Self {
        let observed = decision.observed();
        let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
        Self {
            verdict,
            rule: or(decision.rule, "default"),
            layer: or(decision.layer, "supervisor"),
            message: decision.message,
            hold_id: decision.hold_id,
            observed,
            observed_rule: decision.observed_rule,
            question_id,
            asked: true,
            hold,
        }
    }

    /// The rule that an answer named; `None` where it was a row that decided.
    pub(crate) fn answered(&self) -> Option<&str> {
        self.asked.then_some(self.rule.as_str())
    }
}

impl Story<'_> {
    /// Decides. Waits as long as whoever is asked waits.
    pub(crate) async fn decide(&self, ruling: &Ruling, sight: &Sight) -> Result<Final, Gone> {
        match ruling.verdict {
            pb::Verdict::Allow | pb::Verdict::Log => {
                return Ok(Final::gate(ruling.verdict, &ruling.rule, ""));
            }
            pb::Verdict::Deny | pb::Verdict::Unspecified => {
                return Ok(Final::gate(pb::Verdict::Deny, &ruling.rule, &ruling.message));
            }
            pb::Verdict::Hold | pb::Verdict::Ask => {}
        }
        let epoch = self.shared.asker.epoch(&self.shared.sandbox);
        let asked = Asked {
            subject: self.subject.clone(),
            destination: self.destination.clone(),
            port: self.port,
            seen: sight.seen(),
            rule: ruling.rule.clone(),
        };
        if let Some(known) = self.shared.answers.get(&asked, epoch) {
            let verdict = allowed_or_denied(&known);
            return Ok(Final { layer: "cache".into(), ..Final::answer(verdict, known, 0, None) });
        }
        let action = report::connection(&self.destination, self.port, sight, &ruling.rule);
        let inquiry = self.shared.asker.ask(pb::Question {
            sandbox: self.shared.sandbox.to_string(),
            subject: self.subject.to_string(),
            process: Some(report::process(&self.origin)),
            action: Some(pb::question::Action::Network(action)),
            ..Default::default()
        });
        self.wait(inquiry, asked, epoch).await
    }

    /// Waits for the answer, or for the client to hang up.
    async fn wait(&self, mut inquiry: Inquiry, asked: Asked, epoch: u64) -> Result<Final, Gone> {
        let question_id = inquiry.question_id;
        let mut hold_id = String::new();
        let mut held = false;
        loop {
            let outcome = tokio::select! {
                biased;
                outcome = inquiry.next() => outcome,
                () = hung_up(self.client) => {
                    inquiry.gone("the client closed its connection");
                    return Err(Gone { hold_id, question_id });
                }
            };
            let (verdict, mut decision) = match outcome {
                Outcome::Hold(decision) => {
                    hold_id = decision.hold_id;
                    held = true;
                    inquiry.engaged(None);
                    continue;
                }
                Outcome::Allow(decision) => (allowed_or_denied(&decision), decision),
                Outcome::Deny(decision) => (pb::Verdict::Deny, decision),
            };
            let made_for = if decision.epoch == 0 { epoch } else { decision.epoch };
            self.shared.answers.keep(asked, made_for, &decision);
            if decision.hold_id.is_empty() {
                decision.hold_id = std::mem::take(&mut hold_id);
            }
            let hold = held.then(|| Hold { inquiry, decided: Instant::now() });
            return Ok(Final::answer(verdict, decision, question_id, hold));
        }
    }
}

fn allowed_or_denied(decision: &pb::Decision) -> pb::Verdict {
    match decision.verdict() {
        verdict @ (pb::Verdict::Allow | pb::Verdict::Log) => verdict,
        pb::Verdict::Deny | pb::Verdict::Hold | pb::Verdict::Ask | pb::Verdict::Unspecified => {
            pb::Verdict::Deny
        }
    }
}

/// Returns when the client has ended its side. Bytes that it sends meanwhile stay where they are.
pub(crate) async fn hung_up(client: &TcpStream) {
    loop {
        match client.ready(Interest::READABLE).await {
            Ok(ready) if !ready.is_read_closed() => {}
            Ok(_) | Err(_) => return,
        }
        // Bytes came: say that they are known, so that the next call waits for news.
        let _ = client.try_io(Interest::READABLE, || -> std::io::Result<()> {
            Err(std::io::ErrorKind::WouldBlock.into())
        });
    }
}
