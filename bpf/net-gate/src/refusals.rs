//! Events of denials that no connection task makes: those of the kernel's part, of limits, and of a new table.

use std::sync::Arc;

use clawsec_proto as pb;

use crate::bpf::Refusal;
use crate::live::Grant;
use crate::report;
use crate::shared::Shared;
use crate::table::Ruling;

/// A socket call that the cgroup programs refused.
pub(crate) fn report(shared: &Shared, refusal: &Refusal) {
    let subject = shared.subject_of(&refusal.origin);
    let (protocol, name) = match i32::from(refusal.protocol) {
        libc::IPPROTO_TCP => (pb::NetworkProtocol::Tcp, "TCP"),
        libc::IPPROTO_UDP => (pb::NetworkProtocol::Udp, "UDP"),
        _ => (pb::NetworkProtocol::Unspecified, "this protocol"),
    };
    let (rule, why) = match (&subject, refusal.address.is_loopback() || refusal.address.is_unspecified()) {
        (None, _) => ("bpf/unknown-subject", "the process is of no subject of the sandbox".to_owned()),
        (Some(_), true) => ("bpf/loopback", "the subject may not reach this loopback port".to_owned()),
        (Some(_), false) if refusal.address.is_ipv6() => ("bpf/ipv6", "there is no IPv6 network".to_owned()),
        (Some(_), false) => ("bpf/protocol", format!("{name} does not leave the sandbox")),
    };
    let subject = subject.unwrap_or_else(|| Arc::from(""));
    let target = format!("{} {name} {}:{}", refusal.origin.pid, refusal.address, refusal.port);
    let Some(held_back) = shared.throttle.pass((subject.clone(), target.into())) else { return };
    shared.reporter.decision(
        &subject,
        Some(report::process(&refusal.origin)),
        pb::DecisionEvent {
            action: Some(pb::decision_event::Action::Network(pb::NetworkAction {
                protocol: protocol.into(),
                address: refusal.address.to_string(),
                port: refusal.port.into(),
                rule: rule.into(),
                ..Default::default()
            })),
            verdict: pb::Verdict::Deny.into(),
            rule: rule.into(),
            layer: "bpf".into(),
            message: report::with_held_back(&why, held_back),
            ..Default::default()
        },
    );
}

/// A connection that was reset because the sandbox has too many.
pub(crate) fn report_full(shared: &Shared) {
    let Some(held_back) = shared.throttle.pass(("".into(), "full".into())) else { return };
    let why = format!("the sandbox has {} connections, which is the limit", shared.most_connections);
    shared.reporter.decision(
        "",
        None,
        pb::DecisionEvent {
            action: Some(pb::decision_event::Action::Network(pb::NetworkAction {
                protocol: pb::NetworkProtocol::Tcp.into(),
                rule: "gate/connection-limit".into(),
                ..Default::default()
            })),
            verdict: pb::Verdict::Deny.into(),
            rule: "gate/connection-limit".into(),
            layer: "gate".into(),
            message: report::with_held_back(&why, held_back),
            ..Default::default()
        },
    );
}

/// A live connection that a new table does not allow.
pub(crate) fn report_ended(shared: &Shared, grant: &Grant, ruling: &Ruling) {
    shared.reporter.decision(
        &grant.subject,
        None,
        pb::DecisionEvent {
            action: Some(pb::decision_event::Action::Network(report::seen(
                &grant.destination,
                grant.port,
                &grant.seen,
                &ruling.rule,
            ))),
            verdict: pb::Verdict::Deny.into(),
            rule: ruling.rule.to_string(),
            layer: "gate".into(),
            message: "the new policy does not allow this connection, so it was reset".into(),
            ..Default::default()
        },
    );
}
