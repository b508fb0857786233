//! The rows of a policy, ready to be matched.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use clawsec_proto as pb;
use ipnet::IpNet;

use crate::name::{self, Pattern};

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
    /// Reserved ranges that the row opens.
    pub(crate) opened: Arc<[IpNet]>,
    /// The row's range, when the row is about addresses.
    pub(crate) range: Option<IpNet>,
    /// The first observing row that matched before: what would have been.
    pub(crate) observed: Option<Observed>,
}

/// A row that only watches.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    /// Its rule id.
    pub(crate) rule: Arc<str>,
    /// What it would have decided.
    pub(crate) verdict: pb::Verdict,
}

#[derive(Debug)]
enum What {
    Names(Pattern),
    Addresses(IpNet),
}

#[derive(Debug)]
struct Row {
    subjects: Vec<String>,
    what: What,
    ports: Vec<(u16, u16)>,
    observe: bool,
    ruling: Ruling,
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
            opened: Arc::from([]),
            range: None,
            observed: None,
        };
        Ok(Self { epoch, rows, default, hosts })
    }

    /// The first row that decides.
    pub(crate) fn rule_for(&self, subject: &str, destination: &Destination, port: u16) -> Ruling {
        let mut observed = None;
        for row in &self.rows {
            if !row.is_for(subject) || !row.covers(destination) || !row.has_port(port) {
                continue;
            }
            if row.observe {
                observed.get_or_insert_with(|| Observed {
                    rule: row.ruling.rule.clone(),
                    verdict: row.ruling.verdict,
                });
                continue;
            }
            return Ruling { observed, ..row.ruling.clone() };
        }
        Ruling { observed, ..self.default.clone() }
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
            if row.ports.is_empty() {
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
fn is_open(verdict: pb::Verdict) -> bool {
    match verdict {
        pb::Verdict::Allow | pb::Verdict::Log | pb::Verdict::Hold | pb::Verdict::Ask => true,
        pb::Verdict::Deny | pb::Verdict::Unspecified => false,
    }
}

impl Row {
    fn compile(row: &pb::NetworkRow) -> Result<Self, TableError> {
        let fail = |why: String| TableError { rule: row.rule.clone(), why };
        let what = match (row.host.as_str(), row.cidr.as_str()) {
            ("", "") => return Err(fail("it names neither a host nor a range".into())),
            (host, "") => {
                What::Names(Pattern::parse(host).ok_or_else(|| fail(format!("{host:?} is no host pattern")))?)
            }
            ("", cidr) => What::Addresses(range(cidr).map_err(&fail)?),
            _ => return Err(fail("it names both a host and a range".into())),
        };
        let mut ports = Vec::with_capacity(row.ports.len());
        for port in &row.ports {
            match (u16::try_from(port.first), u16::try_from(port.last)) {
                (Ok(first), Ok(last)) if first <= last => ports.push((first, last)),
                _ => return Err(fail(format!("{}-{} is no range of ports", port.first, port.last))),
            }
        }
        let opened =
            row.resolves_to.iter().map(|cidr| range(cidr).map_err(&fail)).collect::<Result<_, _>>()?;
        let range = match &what {
            What::Addresses(range) => Some(*range),
            What::Names(_) => None,
        };
        let ruling = Ruling {
            verdict: row.verdict(),
            rule: row.rule.as_str().into(),
            message: if row.message.is_empty() { "the policy denies it" } else { &row.message }.into(),
            opened,
            range,
            observed: None,
        };
        Ok(Self { subjects: row.subjects.clone(), what, ports, observe: row.observe, ruling })
    }

    fn is_for(&self, subject: &str) -> bool {
        self.subjects.is_empty() || self.subjects.iter().any(|name| name == subject)
    }

    fn covers(&self, destination: &Destination) -> bool {
        match (&self.what, destination) {
            (What::Names(pattern), Destination::Name(name)) => pattern.matches(name),
            (What::Addresses(range), Destination::Address(address)) => range.contains(&IpAddr::V4(*address)),
            (What::Names(_), Destination::Address(_)) | (What::Addresses(_), Destination::Name(_)) => false,
        }
    }

    fn has_port(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }
}

/// A range, or one address as a range of its own.
fn range(text: &str) -> Result<IpNet, String> {
    let parsed = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    parsed.map(|net| net.trunc()).ok_or_else(|| format!("{text:?} is no range of addresses"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(rule: &str, host: &str, verdict: pb::Verdict) -> pb::NetworkRow {
        pb::NetworkRow { rule: rule.into(), host: host.into(), verdict: verdict.into(), ..Default::default() }
    }

    fn table(rows: Vec<pb::NetworkRow>) -> Table {
        let table = pb::NetworkTable { rows, default_rule: "default".into(), ..Default::default() };
        Table::compile(&table, 1).expect("a table")
    }

    fn name(text: &str) -> Destination {
        Destination::Name(text.into())
    }

    #[test]
    fn the_first_matching_row_decides_and_no_row_is_a_denial() {
        let table =
            table(vec![row("no", "bad.x.com", pb::Verdict::Deny), row("yes", "*.x.com", pb::Verdict::Allow)]);
        assert_eq!(table.rule_for("s", &name("bad.x.com"), 443).verdict, pb::Verdict::Deny);
        assert_eq!(&*table.rule_for("s", &name("good.x.com"), 443).rule, "yes");
        let none = table.rule_for("s", &name("x.com"), 443);
        assert_eq!((none.verdict, &*none.rule), (pb::Verdict::Unspecified, "default"));
    }

    #[test]
    fn a_row_holds_for_its_subjects_and_ports_only() {
        let mut narrow = row("narrow", "x.com", pb::Verdict::Allow);
        narrow.subjects = vec!["gateway".into()];
        narrow.ports = vec![pb::PortRange { first: 443, last: 444 }];
        let table = table(vec![narrow]);
        assert_eq!(table.rule_for("gateway", &name("x.com"), 444).verdict, pb::Verdict::Allow);
        assert_eq!(table.rule_for("tool", &name("x.com"), 444).verdict, pb::Verdict::Unspecified);
        assert_eq!(table.rule_for("gateway", &name("x.com"), 445).verdict, pb::Verdict::Unspecified);
        assert!(table.may_resolve("gateway", "x.com").is_ok());
        assert!(table.may_resolve("tool", "x.com").is_err());
    }

    #[test]
    fn addresses_are_matched_by_ranges_and_never_by_the_pattern_for_any_name() {
        let mut cidr = row("range", "", pb::Verdict::Allow);
        cidr.cidr = "9.9.9.0/24".into();
        let table = table(vec![row("any", "*", pb::Verdict::Allow), cidr]);
        let literal = |text: &str| Destination::Address(text.parse().expect("an address"));
        assert_eq!(&*table.rule_for("s", &literal("9.9.9.9"), 80).rule, "range");
        assert_eq!(table.rule_for("s", &literal("9.9.8.9"), 80).verdict, pb::Verdict::Unspecified);
        assert_eq!(&*table.rule_for("s", &name("x.com"), 80).rule, "any");
    }

    #[test]
    fn an_observing_row_lets_the_next_one_decide_and_is_remembered() {
        let mut watch = row("watch", "*", pb::Verdict::Deny);
        watch.observe = true;
        let table = table(vec![watch, row("yes", "x.com", pb::Verdict::Allow)]);
        let ruling = table.rule_for("s", &name("x.com"), 80);
        assert_eq!((ruling.verdict, &*ruling.rule), (pb::Verdict::Allow, "yes"));
        let observed = ruling.observed.expect("what would have been");
        assert_eq!((observed.verdict, &*observed.rule), (pb::Verdict::Deny, "watch"));
    }

    #[test]
    fn a_denial_of_one_port_does_not_hide_the_name() {
        let mut port = row("no-ssh", "x.com", pb::Verdict::Deny);
        port.ports = vec![pb::PortRange { first: 22, last: 22 }];
        let rows = table(vec![port.clone(), row("yes", "x.com", pb::Verdict::Ask)]);
        assert!(rows.may_resolve("s", "x.com").is_ok());
        assert!(table(vec![port]).may_resolve("s", "x.com").is_err());
        let all = table(vec![row("no", "x.com", pb::Verdict::Deny), row("yes", "*", pb::Verdict::Allow)]);
        assert_eq!(all.may_resolve("s", "x.com").expect_err("denied").as_ref(), "no");
        assert!(all.may_resolve("s", "y.com").is_ok());
    }

    #[test]
    fn a_row_that_cannot_be_read_refuses_the_table() {
        let broken = [
            pb::NetworkRow { rule: "r".into(), ..Default::default() },
            pb::NetworkRow {
                rule: "r".into(),
                host: "a".into(),
                cidr: "1.2.3.4".into(),
                ..Default::default()
            },
            pb::NetworkRow { rule: "r".into(), host: "a*b".into(), ..Default::default() },
            pb::NetworkRow { rule: "r".into(), cidr: "1.2.3.4/33".into(), ..Default::default() },
            pb::NetworkRow {
                rule: "r".into(),
                host: "a".into(),
                resolves_to: vec!["x".into()],
                ..Default::default()
            },
            pb::NetworkRow {
                rule: "r".into(),
                host: "a".into(),
                ports: vec![pb::PortRange { first: 2, last: 1 }],
                ..Default::default()
            },
        ];
        for row in broken {
            let table = pb::NetworkTable { rows: vec![row.clone()], ..Default::default() };
            assert!(Table::compile(&table, 1).is_err(), "{row:?}");
        }
    }
}
