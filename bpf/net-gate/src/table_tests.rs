//! Tests of the table.

use super::*;
use crate::request::Request;

const TLS: Seen = Seen::Protocol(pb::ObservedProtocol::Tls);

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
    assert_eq!(table.rule_for("s", &name("bad.x.com"), 443, &TLS).verdict, pb::Verdict::Deny);
    assert_eq!(&*table.rule_for("s", &name("good.x.com"), 443, &TLS).rule, "yes");
    let none = table.rule_for("s", &name("x.com"), 443, &TLS);
    assert_eq!((none.verdict, &*none.rule), (pb::Verdict::Unspecified, "default"));
}

#[test]
fn a_row_holds_for_its_subjects_and_ports_only() {
    let mut narrow = row("narrow", "x.com", pb::Verdict::Allow);
    narrow.subjects = vec!["gateway".into()];
    narrow.ports = vec![pb::PortRange { first: 443, last: 444 }];
    let table = table(vec![narrow]);
    assert_eq!(table.rule_for("gateway", &name("x.com"), 444, &TLS).verdict, pb::Verdict::Allow);
    assert_eq!(table.rule_for("tool", &name("x.com"), 444, &TLS).verdict, pb::Verdict::Unspecified);
    assert_eq!(table.rule_for("gateway", &name("x.com"), 445, &TLS).verdict, pb::Verdict::Unspecified);
    assert!(table.may_resolve("gateway", "x.com").is_ok());
    assert!(table.may_resolve("tool", "x.com").is_err());
}

#[test]
fn addresses_are_matched_by_ranges_and_never_by_the_pattern_for_any_name() {
    let mut cidr = row("range", "", pb::Verdict::Allow);
    cidr.cidr = "9.9.9.0/24".into();
    let table = table(vec![row("any", "*", pb::Verdict::Allow), cidr]);
    let literal = |text: &str| Destination::Address(text.parse().expect("an address"));
    assert_eq!(&*table.rule_for("s", &literal("9.9.9.9"), 80, &TLS).rule, "range");
    assert_eq!(table.rule_for("s", &literal("9.9.8.9"), 80, &TLS).verdict, pb::Verdict::Unspecified);
    assert_eq!(&*table.rule_for("s", &name("x.com"), 80, &TLS).rule, "any");
}

#[test]
fn an_observing_row_lets_the_next_one_decide_and_is_remembered() {
    let mut watch = row("watch", "*", pb::Verdict::Deny);
    watch.observe = true;
    let table = table(vec![watch, row("yes", "x.com", pb::Verdict::Allow)]);
    let ruling = table.rule_for("s", &name("x.com"), 80, &TLS);
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
        pb::NetworkRow { rule: "r".into(), host: "a".into(), cidr: "1.2.3.4".into(), ..Default::default() },
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

fn seen(method: &str, target: &str) -> Seen {
    let method = method.parse().expect("a method");
    Seen::Request(Request::new(&method, &target.parse().expect("a target")))
}

fn only(protocols: &[pb::ObservedProtocol], row: pb::NetworkRow) -> pb::NetworkRow {
    pb::NetworkRow { protocols: protocols.iter().map(|protocol| (*protocol).into()).collect(), ..row }
}

fn http(methods: &[&str], path: &str, row: pb::NetworkRow) -> pb::NetworkRow {
    let http_methods = methods.iter().map(|method| (*method).into()).collect();
    pb::NetworkRow { http_methods, http_path: path.into(), ..row }
}

#[test]
fn a_row_for_a_protocol_holds_for_it_only_and_hides_no_name() {
    use pb::ObservedProtocol::{Http, None, Other, Tls};
    let rows = table(vec![
        only(&[Other, None], row("no", "x.com", pb::Verdict::Deny)),
        only(&[Tls], row("yes", "x.com", pb::Verdict::Allow)),
    ]);
    let rule = |protocol| rows.rule_for("s", &name("x.com"), 22, &Seen::Protocol(protocol)).rule.to_string();
    assert_eq!([Other, None, Tls, Http].map(rule), ["no", "no", "yes", "default"]);
    assert!(rows.may_resolve("s", "x.com").is_ok());
    let denied = table(vec![only(&[Other], row("no", "x.com", pb::Verdict::Deny))]);
    assert_eq!(denied.may_resolve("s", "x.com").expect_err("nothing allows it").as_ref(), "default");
}

#[test]
fn a_row_about_requests_holds_for_its_methods_and_the_whole_of_its_path() {
    let rows = table(vec![http(&["GET", "HEAD"], "/api/[a-z]+", row("read", "x.com", pb::Verdict::Allow))]);
    let rule = |seen: &Seen| rows.rule_for("s", &name("x.com"), 80, seen).rule.to_string();
    assert_eq!(rule(&seen("GET", "/api/users?x=1")), "read");
    assert_eq!(rule(&seen("HEAD", "http://x.com/api/users")), "read");
    for (method, target) in [
        ("POST", "/api/users"),
        ("GET", "/api/users/1"),
        ("GET", "/v2/api/users"),
        ("GET", "/api/"),
        ("GET", "/API/x"),
    ] {
        assert_eq!(rule(&seen(method, target)), "default", "{method} {target}");
    }
    assert_eq!(rule(&TLS), "default", "inside TLS no request can be read");
    assert_eq!(rule(&Seen::Protocol(pb::ObservedProtocol::Http)), "default");
}

#[test]
fn a_path_that_servers_read_differently_is_refused_by_the_first_rule_about_paths() {
    for verdict in [pb::Verdict::Allow, pb::Verdict::Deny, pb::Verdict::Ask, pb::Verdict::Log] {
        let rows = table(vec![
            http(&["GET"], "/a/.*", row("paths", "x.com", verdict)),
            row("rest", "x.com", pb::Verdict::Allow),
        ]);
        let ruling = |method, target| rows.rule_for("s", &name("x.com"), 80, &seen(method, target));
        let unclear = ruling("GET", "/a/../b");
        assert_eq!((unclear.verdict, &*unclear.rule), (pb::Verdict::Deny, "gate/http-path"));
        assert!(unclear.message.contains("paths is about paths"), "{}", unclear.message);
        assert_eq!(&*ruling("GET", "/a/b").rule, "paths");
        assert_eq!(&*ruling("POST", "/a/../b").rule, "rest", "the row is not about this method");
    }
}

#[test]
fn an_encoding_evades_no_restriction_and_gains_no_permission() {
    let restricted = table(vec![
        http(&[], "/admin", row("no", "x.com", pb::Verdict::Deny)),
        row("rest", "x.com", pb::Verdict::Allow),
    ]);
    let rule =
        |rows: &Table, target| rows.rule_for("s", &name("x.com"), 80, &seen("GET", target)).rule.to_string();
    assert_eq!(rule(&restricted, "/%61dmin"), "no");
    assert_eq!(rule(&restricted, "/admin"), "no");
    assert_eq!(rule(&restricted, "/%62dmin"), "rest");
    let written = table(vec![http(&[], "/%61dmin", row("no", "x.com", pb::Verdict::Ask))]);
    assert_eq!(rule(&written, "/%61dmin"), "no");
    let permitted = table(vec![http(&[], "/[a-z%0-9]+", row("yes", "x.com", pb::Verdict::Allow))]);
    assert_eq!(rule(&permitted, "/%61dmin"), "yes", "both forms match");
    let narrow = table(vec![http(&[], "/admin", row("yes", "x.com", pb::Verdict::Allow))]);
    assert_eq!(rule(&narrow, "/%61dmin"), "default", "only the decoded form matches");
}

#[test]
fn requests_are_read_only_where_a_reachable_row_looks_at_them() {
    let post = || http(&["POST"], "", row("post", "x.com", pb::Verdict::Deny));
    let all = || row("all", "x.com", pb::Verdict::Allow);
    let looks = |rows: Vec<pb::NetworkRow>, host: &str| {
        let rows = table(rows);
        (rows.looks_at_protocols("s", &name(host), 80), rows.looks_at_requests("s", &name(host), 80))
    };
    assert_eq!(looks(vec![post(), all()], "x.com"), (true, true));
    assert_eq!(looks(vec![post(), all()], "y.com"), (false, false));
    assert_eq!(looks(vec![all(), post()], "x.com"), (false, false), "the first row decides all");
    let watching = pb::NetworkRow { observe: true, ..all() };
    assert_eq!(looks(vec![watching, post()], "x.com"), (true, true));
    let asking = || row("ask", "x.com", pb::Verdict::Ask);
    assert_eq!(looks(vec![asking(), post()], "x.com"), (true, true), "whoever is asked looks behind the row");
    assert_eq!(looks(vec![asking(), all()], "x.com"), (false, false));
    let tls = only(&[pb::ObservedProtocol::Tls], all());
    assert_eq!(looks(vec![tls.clone(), all()], "x.com"), (true, false));
    assert_eq!(looks(vec![tls, post()], "x.com"), (true, true));
    let plain = only(&[pb::ObservedProtocol::Http], all());
    assert_eq!(looks(vec![plain, post()], "x.com"), (true, false));
}

#[test]
fn a_row_whose_conditions_cannot_be_read_refuses_the_table() {
    let good = || row("r", "x.com", pb::Verdict::Allow);
    let path = |expression: &str| http(&[], expression, good());
    let broken = [
        path("("),
        path("a)|(b"),
        path("(a{1000}){1000}"),
        http(&["get"], "", good()),
        http(&["GE T"], "", good()),
        http(&[""], "", good()),
        only(&[pb::ObservedProtocol::Unspecified], good()),
        only(&[pb::ObservedProtocol::Tls], path("/")),
        pb::NetworkRow { protocols: vec![99], ..good() },
    ];
    for row in broken {
        let table = pb::NetworkTable { rows: vec![row.clone()], ..Default::default() };
        assert!(Table::compile(&table, 1).is_err(), "{row:?}");
    }
    for row in
        [path("/a|/b"), only(&[pb::ObservedProtocol::Http], path("/")), http(&["M-SEARCH"], "", good())]
    {
        let table = pb::NetworkTable { rows: vec![row.clone()], ..Default::default() };
        assert!(Table::compile(&table, 1).is_ok(), "{row:?}");
    }
}
