//! The rows of a policy, ready to be matched.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use clawsec_proto as pb;
use ipnet::IpNet;

use crate::name;
use crate::request::Seen;
use crate::row::{self, Holds, Row, What};

/// Why a table was not taken. The sandbox keeps the one it has.
#[derive(Debug, thiserror::Error)]
#[error("network table refused: rule {rule}: {why}")]
pub struct TableError {
    /// Rule id of the row.
    pub rule: String,
    /// What is wrong with it.
    pub why: String,
}

/// Where a connection wants to go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Destination {
    /// A name that was looked up at the gate, in its one spelling.
    Name(Arc<str>),
    /// An address that the client brought itself.
    Address(Ipv4Addr),
}

impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => formatter.write_str(name),
            Self::Address(address) => write!(formatter, "{address}"),
        }
    }
}

/// What the table says about one connection.
#[derive(Debug, Clone)]
pub(crate) struct Ruling {
    /// ALLOW, LOG, DENY, or ASK and HOLD (which both mean: ask).
    pub(crate) verdict: pb::Verdict,
    /// Rule id of the row, or that of the default.
    pub(crate) rule: Arc<str>,
    /// What the client is told on a denial.
    pub(crate) message: Arc<str>,
    /// What the row itself permits to dial. Of a row that asks, nothing follows: see [`Table::opening`].
    pub(crate) opening: Opening,
    /// The first observing row that matched before: what would have been.
    pub(crate) observed: Option<Observed>,
}

/// Which addresses may be dialled that are not public.
#[derive(Debug, Clone, Default)]
pub(crate) struct Opening {
    /// Reserved ranges that rows open for what a name leads to.
    pub(crate) opened: Arc<[IpNet]>,
    /// Ranges of rows about addresses, each with the address in it that the client dialled.
    pub(crate) ranges: Arc<[IpNet]>,
}

/// A row that only watches.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    /// Its rule id.
    pub(crate) rule: Arc<str>,
    /// What it would have decided.
    pub(crate) verdict: pb::Verdict,
}

/// One version of the rows.
#[derive(Debug)]
pub(crate) struct Table {
    /// The epoch it came with.
    pub(crate) epoch: u64,
    rows: Vec<Row>,
    default: Ruling,
    hosts: HashMap<String, IpAddr>,
}

impl Table {
    /// Checks every row. A row that cannot be read refuses the whole table.
    pub(crate) fn compile(table: &pb::NetworkTable, epoch: u64) -> Result<Self, TableError> {
        let rows = table.rows.iter().map(Row::compile).collect::<Result<_, _>>()?;
        let mut hosts = HashMap::new();
        for (host, address) in &table.hosts {
            let fail = |why| TableError { rule: "resolver.hosts".into(), why };
            let host = name::normalise(host).ok_or_else(|| fail(format!("{host:?} is no host name")))?;
            let address =
                address.parse().map_err(|_| fail(format!("{address:?} is no address (of {host})")))?;
            hosts.insert(host, address);
        }
        let default = Ruling {
            verdict: table.default_verdict(),
            rule: table.default_rule.as_str().into(),
            message: "no rule allows it".into(),
            opening: Opening::default(),
            observed: None,
        };
        Ok(Self { epoch, rows, default, hosts })
    }

    /// The first row that decides about what was seen of a connection.
    pub(crate) fn rule_for(
        &self,
        subject: &str,
        destination: &Destination,
        port: u16,
        seen: &Seen,
    ) -> Ruling {
        let mut observed = None;
        for row in self.concerned(subject, destination, port) {
            match row.holds(seen) {
                Holds::No => {}
                holds if row.observe => {
                    let verdict = if holds == Holds::Yes { row.ruling.verdict } else { pb::Verdict::Deny };
                    observed.get_or_insert_with(|| Observed { rule: row.ruling.rule.clone(), verdict });
                }
                Holds::Yes => return Ruling { observed, ..row.ruling.clone() },
                Holds::Unclear(why) => return Ruling { observed, ..row::unclear(row, why) },
            }
        }
        Ruling { observed, ..self.default.clone() }
    }

    /// What may be dialled under a ruling. Where it asks, the row that asked says nothing about that, since another rule
    /// may be what the answer goes by: it is what the rows of that rule open for this subject, destination and port. An
    /// answer by no rule of the table opens nothing. `answered`: the rule that the answer names; `None`: nobody was
    /// asked yet, and what any answer could open counts.
    pub(crate) fn opening(
        &self,
        ruling: &Ruling,
        answered: Option<&str>,
        subject: &str,
        destination: &Destination,
        port: u16,
    ) -> Opening {
        match ruling.verdict {
            pb::Verdict::Hold | pb::Verdict::Ask => {}
            _ => return ruling.opening.clone(),
        }
        let rows: Vec<&Opening> = self
            .concerned(subject, destination, port)
            .filter(|row| !row.observe && is_open(row.ruling.verdict))
            .filter(|row| answered.is_none_or(|rule| *row.ruling.rule == *rule))
            .map(|row| &row.ruling.opening)
            .collect();
        Opening {
            opened: rows.iter().flat_map(|row| row.opened.iter().copied()).collect(),
            ranges: rows.iter().flat_map(|row| row.ranges.iter().copied()).collect(),
        }
    }

    /// Whether the first bytes of a connection can make a difference to what is decided about it.
    pub(crate) fn looks_at_protocols(&self, subject: &str, destination: &Destination, port: u16) -> bool {
        // Rows after one that decides in any case are never reached; whoever is asked looks at all of them.
        self.concerned(subject, destination, port)
            .take_while(|row| row.observe || row.asks() || !row.is_unconditional())
            .any(|row| !row.is_unconditional())
    }

    /// Whether a connection that begins as HTTP must be decided request by request.
    pub(crate) fn looks_at_requests(&self, subject: &str, destination: &Destination, port: u16) -> bool {
        self.concerned(subject, destination, port)
            .filter(|row| row.has_protocol(pb::ObservedProtocol::Http))
            .take_while(|row| row.observe || row.asks() || row.is_about_requests())
            .any(Row::is_about_requests)
    }

    fn concerned(&self, subject: &str, destination: &Destination, port: u16) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.concerns(subject, destination, port))
    }

    /// Whether a connection of this subject to this name could be let through on some port. The error is the rule
    /// that says no.
    pub(crate) fn may_resolve(&self, subject: &str, host: &str) -> Result<(), Arc<str>> {
        for row in &self.rows {
            let What::Names(pattern) = &row.what else { continue };
            if row.observe || !row.is_for(subject) || !pattern.matches(host) {
                continue;
            }
            if is_open(row.ruling.verdict) {
                return Ok(());
            }
            // What a row says about some ports, protocols or requests only, it does not say about the name.
            if row.has_all_ports() && row.is_unconditional() {
                return Err(row.ruling.rule.clone());
            }
        }
        if is_open(self.default.verdict) { Ok(()) } else { Err(self.default.rule.clone()) }
    }

    /// The address that the policy gives for a name.
    pub(crate) fn host(&self, host: &str) -> Option<IpAddr> {
        self.hosts.get(host).copied()
    }
}

/// Whether a verdict can end in the connection being made.
pub(crate) fn is_open(verdict: pb::Verdict) -> bool {
    match verdict {
        pb::Verdict::Allow | pb::Verdict::Log | pb::Verdict::Hold | pb::Verdict::Ask => true,
        pb::Verdict::Deny | pb::Verdict::Unspecified => false,
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
