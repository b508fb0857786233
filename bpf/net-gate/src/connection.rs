//! The life of one connection: who, where to, what do the rows say, what does it look like, then yes or no.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Instant;

use clawsec_proto as pb;
use tokio::net::TcpStream;

use crate::bpf::Transport;
use crate::decide::Final;
use crate::dial::{self, DialError};
use crate::first_bytes::{Care, Form, Observation};
use crate::http;
use crate::live::{self, Connection, Grant};
use crate::peek::{self, Beginning, First};
use crate::pool;
use crate::report;
use crate::request::Sight;
use crate::shared::Shared;
use crate::splice;
use crate::story::{Story, microseconds};
use crate::table::{Destination, Ruling, Table, is_open};

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
    let (destination, unknown) = match destination(shared, *target.ip()) {
        Ok(destination) => (destination, None),
        Err(why) => (Destination::Address(*target.ip()), Some(why)),
    };
    let story = Story { shared, client, started, origin, subject, destination, port: target.port() };
    if let Some(why) = unknown {
        let denied = Final::gate(pb::Verdict::Deny, "gate/unknown-address", why);
        story.deny(&Observation::Nothing.into(), Form::Reset, denied).await;
        return;
    }
    while let Next::LookAgain = story.tell(connection).await {}
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
                &Observation::Nothing.into(),
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

/// What comes after a look at a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Over,
    /// What was known has changed before anything was carried.
    LookAgain,
}

impl Story<'_> {
    /// Looks at the beginning, decides, and carries to the end.
    async fn tell(&self, connection: &Connection) -> Next {
        let table = self.shared.table.load_full();
        let looks = table.looks_at_protocols(&self.subject, &self.destination, self.port);
        let sight: Sight = match peek::beginning(self.client, Care::of(self.port, looks)).await {
            Beginning::Seen(observation) => observation.into(),
            Beginning::Bad(form, why) => {
                let ruling = self.ruling(&table, &guess(form).into());
                let denied = self.own_denial(&ruling, "gate/first-bytes", why);
                self.deny(&Observation::Other.into(), form, denied).await;
                return Next::Over;
            }
            Beginning::Closed => {
                live::abort(self.client);
                let nothing = Observation::Nothing.into();
                let ruling = self.ruling(&table, &nothing);
                let why = "the client closed before it said anything";
                self.report(&nothing, &mut self.own_denial(&ruling, "gate/closed", why));
                return Next::Over;
            }
        };
        if self.shared.table.load().epoch != table.epoch {
            return Next::LookAgain;
        }
        if sight.observation.protocol() == pb::ObservedProtocol::Http
            && table.looks_at_requests(&self.subject, &self.destination, self.port)
        {
            http::serve(self, connection, &sight).await;
            return Next::Over;
        }
        let form = sight.observation.form();
        let ruling = self.ruling(&table, &sight);
        if let Some(denied) = self.refused_unasked(&table, &ruling, &sight) {
            self.deny(&sight, form, denied).await;
            return Next::Over;
        }
        let decided = match self.decide(&ruling, &sight).await {
            Ok(decided) => decided,
            Err(gone) => {
                self.gone(&sight, &ruling, gone);
                return Next::Over;
            }
        };
        self.report_observed(&sight, &ruling, &decided);
        match decided.verdict {
            pb::Verdict::Allow | pb::Verdict::Log => self.carry(connection, &sight, decided).await,
            _ => {
                self.deny(&sight, form, decided).await;
                Next::Over
            }
        }
    }

    /// What needs no answer: another name inside, or an address that no rule can lead to.
    pub(crate) fn refused_unasked(&self, table: &Table, ruling: &Ruling, sight: &Sight) -> Option<Final> {
        if let Some(denied) = self.mismatch(ruling, sight) {
            return Some(denied);
        }
        match dial::check_before(&self.destination, &self.opening(table, ruling, None)) {
            Err(DialError::Refused(why) | DialError::Failed(why)) if is_open(ruling.verdict) => {
                Some(Final::gate(pb::Verdict::Deny, &ruling.rule, &why))
            }
            _ => None,
        }
    }

    /// Dials for what was allowed, and has the connection known as live.
    pub(crate) async fn reach(
        &self,
        connection: &Connection,
        sight: &Sight,
        decided: &Final,
    ) -> Result<Arc<TcpStream>, Unreached> {
        // The table may have changed while somebody was asked.
        let table = self.shared.table.load_full();
        let ruling = self.ruling(&table, sight);
        let opening = self.opening(&table, &ruling, decided.answered());
        let lookups = &self.shared.lookups;
        let upstream = dial::dial(&table, &self.destination, self.port, &opening, lookups).await;
        let upstream = Arc::new(upstream.map_err(Unreached::Dial)?);
        let closed = |_| Unreached::Dial(DialError::Failed("it was closed at once".into()));
        let peer = upstream.peer_addr().map_err(closed)?;
        let grant = self.grant(sight, peer.ip(), decided);
        // First into the list, then against the table: a table that comes between the two finds it there.
        if !connection.establish(upstream.clone(), Some(grant.clone())) {
            return Err(Unreached::Ended);
        }
        if !self.shared.stands(&grant) {
            live::abort(&upstream);
            return Err(Unreached::Dial(DialError::Refused(CHANGED.into())));
        }
        splice::keep_alive(self.client);
        splice::keep_alive(&upstream);
        Ok(upstream)
    }

    /// Why this is let through, to an address that was dialled.
    pub(crate) fn grant(&self, sight: &Sight, peer: IpAddr, decided: &Final) -> Grant {
        Grant {
            subject: self.subject.clone(),
            destination: self.destination.clone(),
            port: self.port,
            seen: sight.seen(),
            peer,
            answered: decided.answered().map(Arc::from),
        }
    }

    /// Makes the other side of an allowed connection, and carries bytes until both sides have ended.
    async fn carry(&self, connection: &Connection, sight: &Sight, mut decided: Final) -> Next {
        let upstream = match self.reach(connection, sight, &decided).await {
            Ok(upstream) => upstream,
            Err(Unreached::Ended) => return Next::Over,
            Err(Unreached::Dial(error)) => {
                let (end, kind, why) = Self::not_reached(decided, error);
                self.refuse(sight, sight.observation.form(), end, kind, &why).await;
                return Next::Over;
            }
        };
        self.report(sight, &mut decided);
        if sight.observation == Observation::Nothing && self.speaks_late(&upstream).await {
            live::abort(&upstream);
            return Next::LookAgain;
        }
        match splice::both_ways(self.client, &upstream, &self.shared.large_pipes).await {
            Ok(carried) => {
                tracing::debug!(sandbox = %self.shared.sandbox, ?carried, "connection ended");
            }
            Err(_) => splice::end_both(self.client, &upstream).await,
        }
        Next::Over
    }

    /// Whether a client that was silent says the first word after all, where rows look at protocols: waiting a while
    /// must not be a way around them.
    async fn speaks_late(&self, upstream: &TcpStream) -> bool {
        self.shared.table.load().looks_at_protocols(&self.subject, &self.destination, self.port)
            && peek::first_word(self.client, upstream).await == First::Client
    }
}

/// Said when a table has come between a decision and what follows from it.
pub(crate) const CHANGED: &str = "the policy has changed meanwhile";

/// Why there is no other side.
#[derive(Debug)]
pub(crate) enum Unreached {
    /// The connection was ended meanwhile; nobody is left to be told.
    Ended,
    Dial(DialError),
}

/// What a beginning that was refused looked like.
fn guess(form: Form) -> Observation {
    match form {
        Form::Tls => Observation::Tls(None),
        Form::Http => Observation::Http(None),
        Form::Reset => Observation::Other,
    }
}
