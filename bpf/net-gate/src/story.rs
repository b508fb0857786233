//! One thing that is decided, a connection or a request of it: whose it is, where it goes, and how its end is told.

use std::sync::Arc;
use std::time::Instant;

use clawsec_proto as pb;
use tokio::net::TcpStream;

use crate::bpf::Origin;
use crate::decide::{Final, Gone};
use crate::dial::DialError;
use crate::first_bytes::Form;
use crate::live;
use crate::refuse::{self, Kind};
use crate::report;
use crate::request::Sight;
use crate::shared::Shared;
use crate::table::{Destination, Opening, Ruling, Table, is_open};

/// A connection whose subject is known, or one request of it.
#[derive(Debug, Clone)]
pub(crate) struct Story<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) client: &'a Arc<TcpStream>,
    /// When it was seen.
    pub(crate) started: Instant,
    pub(crate) origin: Origin,
    pub(crate) subject: Arc<str>,
    pub(crate) destination: Destination,
    pub(crate) port: u16,
}

/// Time since then, for events.
pub(crate) fn microseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

impl Story<'_> {
    /// What a table says.
    pub(crate) fn ruling(&self, table: &Table, sight: &Sight) -> Ruling {
        table.rule_for(&self.subject, &self.destination, self.port, &sight.seen())
    }

    /// What a table's ruling lets be dialled, `answered` being the rule that an answer named, if there was one.
    pub(crate) fn opening(&self, table: &Table, ruling: &Ruling, answered: Option<&str>) -> Opening {
        table.opening(ruling, answered, &self.subject, &self.destination, self.port)
    }

    /// A denial by the gate of what a row might have allowed; a row that denies keeps its own words.
    pub(crate) fn own_denial(&self, ruling: &Ruling, rule: &str, why: &str) -> Final {
        if is_open(ruling.verdict) {
            Final::gate(pb::Verdict::Deny, rule, why)
        } else {
            Final::gate(pb::Verdict::Deny, &ruling.rule, &ruling.message)
        }
    }

    /// The name inside the connection must be the one that was dialled: behind one address may be many hosts.
    pub(crate) fn mismatch(&self, ruling: &Ruling, sight: &Sight) -> Option<Final> {
        let (Destination::Name(dialled), Some(inside)) = (&self.destination, sight.observation.host()) else {
            return None;
        };
        if **dialled == *inside {
            return None;
        }
        let why = format!("the connection was made to {dialled} but asks for {inside}");
        Some(self.own_denial(ruling, "gate/name-mismatch", &why))
    }

    /// The verdict and the words for the client of something that was allowed and not reached.
    pub(crate) fn not_reached(decided: Final, error: DialError) -> (Final, Kind, String) {
        match error {
            DialError::Refused(why) => {
                let denied = Final { verdict: pb::Verdict::Deny, layer: "gate".into(), ..decided };
                (Final { message: why.clone(), ..denied }, Kind::Denied, why)
            }
            DialError::Failed(why) => {
                (Final { message: format!("allowed, but {why}"), ..decided }, Kind::Failed, why)
            }
        }
    }

    /// Tells of a denial, and ends the connection.
    pub(crate) async fn deny(&self, sight: &Sight, form: Form, denied: Final) {
        let why = denied.message.clone();
        self.refuse(sight, form, denied, Kind::Denied, &why).await;
    }

    /// Tells that nothing comes of it, and ends the connection.
    pub(crate) async fn refuse(&self, sight: &Sight, form: Form, mut end: Final, kind: Kind, why: &str) {
        // Before the client is told: whoever waits for the end of the connection finds the event there.
        self.report(sight, &mut end);
        refuse::refuse(self.client, form, kind, why, &end.rule).await;
    }

    /// The client did not wait for the decision.
    pub(crate) fn gone(&self, sight: &Sight, ruling: &Ruling, gone: Gone) {
        live::abort(self.client);
        let message = "the client closed its connection while it waited for a decision";
        let mut withdrawn = Final {
            hold_id: gone.hold_id,
            question_id: gone.question_id,
            ..Final::gate(pb::Verdict::Deny, &ruling.rule, message)
        };
        self.report(sight, &mut withdrawn);
    }

    /// Emits the event of a verdict that is being carried out, and settles its hold.
    pub(crate) fn report(&self, sight: &Sight, decided: &mut Final) {
        let action = report::connection(&self.destination, self.port, sight, &decided.rule);
        let event = pb::DecisionEvent {
            action: Some(pb::decision_event::Action::Network(action)),
            verdict: decided.verdict.into(),
            rule: decided.rule.clone(),
            layer: decided.layer.clone(),
            message: decided.message.clone(),
            latency_us: microseconds(self.started),
            hold_id: decided.hold_id.clone(),
            observed: decided.observed.into(),
            observed_rule: decided.observed_rule.clone(),
            question_id: decided.question_id,
            ..Default::default()
        };
        self.shared.reporter.decision(&self.subject, Some(report::process(&self.origin)), event);
        if let Some(hold) = decided.hold.take() {
            hold.settled(decided.verdict);
        }
    }

    /// Emits what an observing row would have decided.
    pub(crate) fn report_observed(&self, sight: &Sight, ruling: &Ruling, decided: &Final) {
        let Some(observed) = &ruling.observed else { return };
        let mut event = Final {
            observed: observed.verdict,
            observed_rule: observed.rule.to_string(),
            ..Final::gate(decided.verdict, &observed.rule, "observed only: another rule decided")
        };
        self.report(sight, &mut event);
    }
}
