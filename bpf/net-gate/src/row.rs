//! One row of a table: for whom it holds, for what, and what it says.

use std::net::IpAddr;
use std::sync::Arc;

use clawsec_core::re2;
use clawsec_proto as pb;
use ipnet::IpNet;
use regex::{Regex, RegexBuilder};

use crate::name::Pattern;
use crate::request::{PathReading, Request, Seen};
use crate::table::{Destination, Opening, Ruling, TableError, is_open};

/// Memory that one compiled expression may take. It bounds what a policy can make the loader hold, and the time of a
/// match, which grows with the length of the path only.
const REGEX_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(crate) enum What {
    Names(Pattern),
    Addresses(IpNet),
}

/// Conditions on single requests.
#[derive(Debug)]
struct Http {
    methods: Vec<String>,
    path: Option<Regex>,
}

/// Whether a row holds for what was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    Yes,
    No,
    /// The row is about paths, and this path can be read in more than one way.
    Unclear(&'static str),
}

#[derive(Debug)]
pub(crate) struct Row {
    subjects: Vec<String>,
    pub(crate) what: What,
    ports: Vec<(u16, u16)>,
    protocols: Vec<pb::ObservedProtocol>,
    http: Option<Http>,
    pub(crate) observe: bool,
    pub(crate) ruling: Ruling,
}

impl Row {
    /// Checks a row and makes it ready.
    pub(crate) fn compile(row: &pb::NetworkRow) -> Result<Self, TableError> {
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
        let ranges = match &what {
            What::Addresses(range) => Arc::from([*range]),
            What::Names(_) => Arc::from([]),
        };
        let mut protocols: Vec<pb::ObservedProtocol> = row.protocols().collect();
        if protocols.len() != row.protocols.len() || protocols.contains(&pb::ObservedProtocol::Unspecified) {
            return Err(fail(format!("{:?} has a number that is no protocol", row.protocols)));
        }
        let http = Http::compile(row).map_err(&fail)?;
        if http.is_some() {
            if protocols.iter().any(|protocol| *protocol != pb::ObservedProtocol::Http) {
                return Err(fail("it looks at HTTP requests, and holds for another protocol".into()));
            }
            protocols = vec![pb::ObservedProtocol::Http];
        }
        let ruling = Ruling {
            verdict: row.verdict(),
            rule: row.rule.as_str().into(),
            message: if row.message.is_empty() { "the policy denies it" } else { &row.message }.into(),
            opening: Opening { opened, ranges },
            observed: None,
        };
        Ok(Self {
            subjects: row.subjects.clone(),
            what,
            ports,
            protocols,
            http,
            observe: row.observe,
            ruling,
        })
    }

    /// Whether it holds for this subject, destination and port, the rest left open.
    pub(crate) fn concerns(&self, subject: &str, destination: &Destination, port: u16) -> bool {
        self.is_for(subject) && self.covers(destination) && self.has_port(port)
    }

    /// Whether it holds for what was seen of a connection that it concerns.
    pub(crate) fn holds(&self, seen: &Seen) -> Holds {
        if !self.has_protocol(seen.protocol()) {
            return Holds::No;
        }
        match (&self.http, seen) {
            (None, _) => Holds::Yes,
            (Some(_), Seen::Protocol(_)) => Holds::No,
            (Some(http), Seen::Request(request)) => {
                http.holds(request, is_open_by_itself(self.ruling.verdict))
            }
        }
    }

    /// Whether it holds whatever the first bytes are.
    pub(crate) fn is_unconditional(&self) -> bool {
        self.protocols.is_empty() && self.http.is_none()
    }

    /// Whether it looks at single requests.
    pub(crate) fn is_about_requests(&self) -> bool {
        self.http.is_some()
    }

    /// Whether somebody else decides, who looks at the rules behind it too.
    pub(crate) fn asks(&self) -> bool {
        matches!(self.ruling.verdict, pb::Verdict::Ask | pb::Verdict::Hold)
    }

    /// Whether it can hold for this protocol.
    pub(crate) fn has_protocol(&self, protocol: pb::ObservedProtocol) -> bool {
        self.protocols.is_empty() || self.protocols.contains(&protocol)
    }

    /// Whether it holds for every port.
    pub(crate) fn has_all_ports(&self) -> bool {
        self.ports.is_empty()
    }

    pub(crate) fn is_for(&self, subject: &str) -> bool {
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

/// Whether the row itself lets through; a question does not.
fn is_open_by_itself(verdict: pb::Verdict) -> bool {
    is_open(verdict) && !matches!(verdict, pb::Verdict::Hold | pb::Verdict::Ask)
}

impl Http {
    fn compile(row: &pb::NetworkRow) -> Result<Option<Self>, String> {
        if row.http_methods.is_empty() && row.http_path.is_empty() {
            return Ok(None);
        }
        for method in &row.http_methods {
            let known = hyper::Method::from_bytes(method.as_bytes()).is_ok();
            if !known || method.bytes().any(|byte| byte.is_ascii_lowercase()) {
                return Err(format!("{method:?} is no HTTP method in capitals"));
            }
        }
        let path = match row.http_path.as_str() {
            "" => None,
            expression => Some(whole(expression)?),
        };
        Ok(Some(Self { methods: row.http_methods.clone(), path }))
    }

    fn holds(&self, request: &Request, permits: bool) -> Holds {
        if !self.methods.is_empty() && !self.methods.contains(&request.method) {
            return Holds::No;
        }
        let Some(path) = &self.path else { return Holds::Yes };
        let holds = match &request.reading {
            PathReading::Doubtful(why) => return Holds::Unclear(why),
            PathReading::Forms(forms) if permits => forms.iter().all(|form| path.is_match(form)),
            PathReading::Forms(forms) => forms.iter().any(|form| path.is_match(form)),
        };
        if holds { Holds::Yes } else { Holds::No }
    }
}

/// An expression that must match all of a text.
fn whole(expression: &str) -> Result<Regex, String> {
    let translated = re2::translate(expression)
        .map_err(|error| format!("{expression:?} is no expression for a path: {error}"))?;
    let expression = translated.as_str();
    let build = |expression: &str| {
        RegexBuilder::new(expression).size_limit(REGEX_BYTES).dfa_size_limit(REGEX_BYTES).build()
    };
    // By itself first: "a)|(b" is no expression, but would become one between brackets.
    build(expression)
        .and_then(|_| build(&format!(r"\A(?:{expression})\z")))
        .map_err(|error| format!("{expression:?} is no expression for a path: {error}"))
}

/// A range, or one address as a range of its own.
fn range(text: &str) -> Result<IpNet, String> {
    let parsed = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    parsed.map(|net| net.trunc()).ok_or_else(|| format!("{text:?} is no range of addresses"))
}

/// The rule id of requests whose path no rule about paths can decide.
pub(crate) const UNCLEAR_PATH: &str = "gate/http-path";

/// The ruling for such a request.
pub(crate) fn unclear(row: &Row, why: &str) -> Ruling {
    let rule = &row.ruling.rule;
    Ruling {
        verdict: pb::Verdict::Deny,
        rule: UNCLEAR_PATH.into(),
        message: Arc::from(format!(
            "servers do not agree on what this path is: {why}; {rule} is about paths and cannot decide it"
        )),
        opening: Opening::default(),
        observed: None,
    }
}
