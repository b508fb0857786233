//! The life of one connection: who, where to, what do the rows say, what does it look like, then yes or no.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Instant;

use clawsec_proto as pb;
use tokio::net::TcpStream;

use crate::bpf::{Origin, Transport};
use crate::decide::{Attempt, Final, Gone};
use crate::dial::{self, DialError};
use crate::first_bytes::{Form, Observation};
use crate::live::{self, Connection, Grant};
use crate::peek::{self, Beginning};
use crate::pool;
use crate::refuse::{self, Kind};
use crate::report;
use crate::shared::Shared;
use crate::splice;
use crate::table::{Destination, Ruling};

/// Serves one accepted connection to its end.
pub(crate) async fn serve(shared: Arc<Shared>, client: TcpStream) {
    let started = Instant::now();
    let client = Arc::new(client);
    let Some(entry) = shared.live.add(client.clone()) else { return };
    let connection = entry.connection.clone();
    tokio::select! {
        () = connection.stop.cancelled() => {}
        () = decide_and_carry(&shared, &connection, started) => {}
    }
}

/// The addresses of a connection, when they are what the gate's listener can have.
fn ends(client: &TcpStream) -> Option<(SocketAddrV4, SocketAddrV4)> {
    match (client.peer_addr().ok()?, client.local_addr().ok()?) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => Some((source, destination)),
        _ => None,
    }
}

async fn decide_and_carry(shared: &Shared, connection: &Connection, started: Instant) {
    let client = &connection.client;
    let Some((source, target)) = ends(client) else {
        live::abort(client);
        return;
    };
    let origin = shared.flows.take(Transport::Tcp, source, target);
    let known = origin.and_then(|origin| shared.subject_of(&origin).map(|subject| (origin, subject)));
    let Some((origin, subject)) = known else {
        live::abort(client);
        report_unknown(shared, *target.ip(), target.port(), started);
        return;
    };
    let destination = match destination(shared, *target.ip()) {
        Ok(destination) => destination,
        Err(why) => {
            let story = Story { shared, client, started, origin, subject, port: target.port() };
            let denied = Final::gate(pb::Verdict::Deny, "gate/unknown-address", why);
            let nowhere = Destination::Address(*target.ip());
            story.deny(&nowhere, &Observation::Nothing, Form::Reset, denied).await;
            return;
        }
    };
    let story = Story { shared, client, started, origin, subject, port: target.port() };
    story.tell(connection, &destination).await;
}

/// What an address stands for.
fn destination(shared: &Shared, address: Ipv4Addr) -> Result<Destination, &'static str> {
    if address.is_loopback() {
        return Err("the gate is not reached at a loopback address");
    }
    if !pool::is_synthetic(address) {
        return Ok(Destination::Address(address));
    }
    shared
        .pool
        .name_of(address)
        .map(Destination::Name)
        .ok_or("no name was looked up that this address stands for")
}

fn report_unknown(shared: &Shared, address: Ipv4Addr, port: u16, started: Instant) {
    let Some(held_back) = shared.throttle.pass(("".into(), "unattributed".into())) else { return };
    let message = "no subject of the sandbox began this connection";
    shared.reporter.decision(
        "",
        None,
        pb::DecisionEvent {
            action: Some(pb::decision_event::Action::Network(report::connection(
                &Destination::Address(address),
                port,
                &Observation::Nothing,
                "gate/unattributed",
            ))),
            verdict: pb::Verdict::Deny.into(),
            rule: "gate/unattributed".into(),
            layer: "gate".into(),
            message: report::with_held_back(message, held_back),
            latency_us: microseconds(started),
            ..Default::default()
        },
    );
}

fn microseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// A connection whose subject is known.
struct Story<'a> {
    shared: &'a Shared,
    client: &'a Arc<TcpStream>,
    started: Instant,
    origin: Origin,
    subject: Arc<str>,
    port: u16,
}

impl Story<'_> {
    async fn tell(&self, connection: &Connection, destination: &Destination) {
        let ruling = self.shared.table.load().rule_for(&self.subject, destination, self.port);
        let observation = match peek::beginning(self.client, self.port).await {
            Beginning::Seen(observation) => observation,
            Beginning::Bad(form, why) => {
                let denied = self.own_denial(&ruling, "gate/first-bytes", why);
                self.deny(destination, &Observation::Other, form, denied).await;
                return;
            }
            Beginning::Closed => {
                live::abort(self.client);
                let mut ended =
                    self.own_denial(&ruling, "gate/closed", "the client closed before it said anything");
                self.report(destination, &Observation::Nothing, &mut ended);
                return;
            }
        };
        let form = observation.form();
        if let Some(denied) = self.mismatch(&ruling, destination, &observation) {
            self.deny(destination, &observation, form, denied).await;
            return;
        }
        if let (true, Err(DialError::Refused(why) | DialError::Failed(why))) =
            (is_open(ruling.verdict), dial::check_before(destination, &ruling))
        {
            let denied = Final::gate(pb::Verdict::Deny, &ruling.rule, &why);
            self.deny(destination, &observation, form, denied).await;
            return;
        }
        let attempt = Attempt {
            shared: self.shared,
            client: self.client,
            origin: &self.origin,
            subject: &self.subject,
            destination,
            port: self.port,
        };
        let decided = match attempt.decide(&ruling, &observation).await {
            Ok(decided) => decided,
            Err(gone) => {
                self.gone(destination, &observation, &ruling, gone);
                return;
            }
        };
        self.report_observed(destination, &observation, &ruling, &decided);
        match decided.verdict {
            pb::Verdict::Allow | pb::Verdict::Log => {
                self.carry(connection, destination, &observation, decided).await;
            }
            _ => self.deny(destination, &observation, form, decided).await,
        }
    }

    /// A denial by the gate of what a row might have allowed; a row that denies keeps its own words.
    fn own_denial(&self, ruling: &Ruling, rule: &str, why: &str) -> Final {
        match ruling.verdict {
            pb::Verdict::Deny | pb::Verdict::Unspecified => {
                Final::gate(pb::Verdict::Deny, &ruling.rule, &ruling.message)
            }
            _ => Final::gate(pb::Verdict::Deny, rule, why),
        }
    }

    /// The name inside the connection must be the one that was dialled: behind one address may be many hosts.
    fn mismatch(&self, ruling: &Ruling, destination: &Destination, seen: &Observation) -> Option<Final> {
        let (Destination::Name(dialled), Some(inside)) = (destination, seen.host()) else { return None };
        if **dialled == *inside {
            return None;
        }
        let why = format!("the connection was made to {dialled} but asks for {inside}");
        Some(self.own_denial(ruling, "gate/name-mismatch", &why))
    }

    /// Makes the other side of an allowed connection, and carries bytes until both sides have ended.
    async fn carry(
        &self,
        connection: &Connection,
        destination: &Destination,
        seen: &Observation,
        mut decided: Final,
    ) {
        // The table may have changed while somebody was asked.
        let table = self.shared.table.load_full();
        let ruling = table.rule_for(&self.subject, destination, self.port);
        let dialled = dial::dial(&table, destination, self.port, &ruling, &self.shared.lookups).await;
        let upstream = match dialled {
            Ok(upstream) => Arc::new(upstream),
            Err(error) => {
                self.not_reached(destination, seen, decided, error).await;
                return;
            }
        };
        let Ok(peer) = upstream.peer_addr() else {
            let error = DialError::Failed("it was closed at once".into());
            self.not_reached(destination, seen, decided, error).await;
            return;
        };
        let grant = Grant {
            subject: self.subject.clone(),
            destination: destination.clone(),
            port: self.port,
            peer: peer.ip(),
            asked: decided.asked,
        };
        // First into the list, then against the table: a table that comes between the two finds it there.
        if !connection.establish(upstream.clone(), Some(grant.clone())) {
            return;
        }
        if !self.shared.stands(&grant) {
            live::abort(&upstream);
            let denied = Final { verdict: pb::Verdict::Deny, ..decided };
            let denied = Final { message: "the policy has changed meanwhile".into(), ..denied };
            self.deny(destination, seen, seen.form(), denied).await;
            return;
        }
        splice::keep_alive(self.client);
        splice::keep_alive(&upstream);
        self.report(destination, seen, &mut decided);
        match splice::both_ways(self.client, &upstream, &self.shared.large_pipes).await {
            Ok(carried) => {
                tracing::debug!(sandbox = %self.shared.sandbox, ?carried, "connection ended");
            }
            Err(_) => splice::end_both(self.client, &upstream).await,
        }
    }

    async fn not_reached(
        &self,
        destination: &Destination,
        seen: &Observation,
        decided: Final,
        error: DialError,
    ) {
        match error {
            DialError::Refused(why) => {
                let denied =
                    Final { verdict: pb::Verdict::Deny, layer: "gate".into(), message: why, ..decided };
                self.deny(destination, seen, seen.form(), denied).await;
            }
            DialError::Failed(why) => {
                let mut failed = Final { message: format!("allowed, but {why}"), ..decided };
                self.report(destination, seen, &mut failed);
                refuse::refuse(self.client, seen.form(), Kind::Failed, &why, &failed.rule).await;
            }
        }
    }

    async fn deny(&self, destination: &Destination, seen: &Observation, form: Form, mut denied: Final) {
        // Before the client is told: whoever waits for the end of the connection finds the event there.
        self.report(destination, seen, &mut denied);
        refuse::refuse(self.client, form, Kind::Denied, &denied.message, &denied.rule).await;
    }

    fn gone(&self, destination: &Destination, seen: &Observation, ruling: &Ruling, gone: Gone) {
        live::abort(self.client);
        let message = "the client closed its connection while it waited for a decision";
        let mut withdrawn = Final {
            hold_id: gone.hold_id,
            question_id: gone.question_id,
            ..Final::gate(pb::Verdict::Deny, &ruling.rule, message)
        };
        self.report(destination, seen, &mut withdrawn);
    }

    /// Emits the event of a verdict that is being carried out, and settles its hold.
    fn report(&self, destination: &Destination, seen: &Observation, decided: &mut Final) {
        let event = pb::DecisionEvent {
            action: Some(pb::decision_event::Action::Network(report::connection(
                destination,
                self.port,
                seen,
                &decided.rule,
            ))),
            verdict: decided.verdict.into(),
            rule: decided.rule.clone(),
            layer: decided.layer.clone(),
            message: decided.message.clone(),
            latency_us: microseconds(self.started),
            hold_id: decided.hold_id.clone(),
            observed: decided.observed.into(),
            question_id: decided.question_id,
            ..Default::default()
        };
        self.shared.reporter.decision(&self.subject, Some(report::process(&self.origin)), event);
        if let Some(hold) = decided.hold.take() {
            hold.settled(decided.verdict);
        }
    }

    /// Emits what an observing row would have decided.
    fn report_observed(
        &self,
        destination: &Destination,
        seen: &Observation,
        ruling: &Ruling,
        decided: &Final,
    ) {
        let Some(observed) = &ruling.observed else { return };
        let mut event = Final {
            observed: observed.verdict,
            ..Final::gate(decided.verdict, &observed.rule, "observed only: another rule decided")
        };
        self.report(destination, seen, &mut event);
    }
}

fn is_open(verdict: pb::Verdict) -> bool {
    !matches!(verdict, pb::Verdict::Deny | pb::Verdict::Unspecified)
}
