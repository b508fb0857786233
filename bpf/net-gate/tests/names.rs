//! What may be reached by name, and what the client is told when it may not.

mod common;

use clawsec_core::pb::Verdict::{Allow, Deny, Log};
use clawsec_core::pb::{self, ObservedProtocol};
use common::{action, row, table, world};

const ACCESS_DENIED: &str = "b'\\x15\\x03\\x03\\x00\\x02\\x021'";

#[test]
fn an_allowed_name_is_reached_and_a_denied_one_is_told_by_which_rule() {
    let rows = vec![
        row("net/good", "good.example", Allow),
        row("net/bad", "bad.example", Deny),
        row("net/dns", "*", Allow),
    ];
    let mut table = table(rows);
    // So that the look-up succeeds and the connection itself is denied.
    table.rows[1].ports = vec![pb::PortRange { first: 1, last: 65_535 }];
    world(table, |world| {
        let good = world.curl("tool", &["http://good.example/"]);
        assert_eq!(String::from_utf8_lossy(&good.stdout), "reached 9.9.9.9:80", "{good:?}");
        let (event, decision) = world.decision("good.example");
        assert_eq!((decision.verdict(), &*decision.rule, &*decision.layer), (Allow, "net/good", "gate"));
        assert_eq!((&*event.subject, event.process.unwrap().comm.as_str()), ("tool", "curl"));
        assert_eq!(action(&decision).observed_host, "good.example");
        assert_eq!(action(&decision).observed_protocol(), ObservedProtocol::Http);

        let bad = world.curl("tool", &["-i", "http://bad.example/"]);
        let bad = String::from_utf8_lossy(&bad.stdout);
        assert!(bad.starts_with("HTTP/1.1 403 Forbidden"), "{bad}");
        assert!(bad.ends_with("access denied: net/bad says so (rule net/bad)\n"), "{bad}");
        let (event, decision) = world.decision("bad.example");
        assert_eq!((decision.verdict(), &*decision.rule), (Deny, "net/bad"));
        assert!(event.process.unwrap().pid > 0);
    });
}

#[test]
fn a_tls_client_gets_the_alert_access_denied_or_its_server() {
    let mut table = table(vec![
        row("net/good", "good.example", Log),
        row("net/bad", "bad.example", Deny),
        row("x", "*", Allow),
    ]);
    table.rows[1].ports = vec![pb::PortRange { first: 443, last: 443 }];
    world(table, |world| {
        assert_eq!(world.run("tool", "print(tls('good.example'))"), "b'SERVER HELLO'");
        assert_eq!(world.decision("good.example").1.verdict(), Log);
        assert_eq!(world.run("tool", "print(tls('bad.example'))"), ACCESS_DENIED);
        let real = world.curl("tool", &["https://bad.example/"]);
        let error = String::from_utf8_lossy(&real.stderr);
        assert!(error.contains("access denied"), "{error}");
    });
}

#[test]
fn another_protocol_goes_on_by_name_and_is_reset_when_denied() {
    let mut table = table(vec![
        row("net/good", "good.example", Allow),
        row("net/bad", "bad.example", Deny),
        row("x", "*", Allow),
    ]);
    table.rows[1].ports = vec![pb::PortRange { first: 2525, last: 2525 }];
    world(table, |world| {
        let script = "s = connect(HOST, 2525); print(attempt(lambda: s.recv(99)));
attempt(lambda: s.sendall(b'ping')); print(attempt(lambda: s.recv(99)))";
        let good = world.run("tool", &script.replace("HOST", "'good.example'"));
        assert_eq!(good, "b'220 welcome\\r\\n'\nb'ping'");
        let bad = world.run("tool", &script.replace("HOST", "'bad.example'"));
        assert!(bad.starts_with("ECONNRESET"), "{bad}");
    });
}

#[test]
fn a_name_that_no_row_could_let_through_is_refused_at_the_look_up() {
    world(table(vec![row("net/good", "good.example", Allow)]), |world| {
        let script = "
print(rcode(dns(query('good.example'))), rcode(dns(query('bad.example'))))
print(rcode(dns(query('good.example', 28))), len(dns(query('good.example', 28))) < 60)
print(attempt(lambda: connect('bad.example', 80)))
a = dns(query('good.example'))[-4:]; b = dns(query('GOOD.example'))[-4:]
print(a == b, a[0], a[1] in (18, 19))";
        let lines = world.run("tool", script);
        assert_eq!(lines, "0 5\n0 True\ngaierror -3\nTrue 198 True");
        let (event, decision) = world.decision("bad.example");
        assert_eq!((decision.verdict(), &*decision.rule), (Deny, "default"));
        assert_eq!(action(&decision).protocol(), pb::NetworkProtocol::Dns);
        assert_eq!(event.subject, "tool");
    });
}

#[test]
fn the_name_server_answers_over_tcp_too() {
    world(table(vec![row("net/good", "good.example", Allow)]), |world| {
        let script = "
s = connect('127.0.0.53', 53)
for host in ('good.example', 'bad.example'):
    q = query(host); s.sendall(struct.pack('>H', len(q)) + q)
    n = struct.unpack('>H', s.recv(2))[0]; print(rcode(s.recv(n)))";
        assert_eq!(world.run("tool", script), "0\n5");
    });
}

#[test]
fn a_row_for_one_subject_is_none_for_another() {
    let mut table =
        table(vec![row("net/good", "good.example", Allow), row("net/bad", "other.example", Deny)]);
    table.rows[0].subjects = vec!["gateway".into()];
    world(table, |world| {
        assert!(world.run("gateway", "print(get('good.example'))").contains("reached"));
        assert_eq!(world.run("tool", "print(get('good.example'))"), "gaierror -3");
        // The address that the other subject got stands for the name, not for a right.
        let address = world.run("gateway", "print(socket.gethostbyname('good.example'))");
        let denied = world.run("tool", &format!("print(get('{address}'))"));
        assert!(denied.contains("403 Forbidden"), "{denied}");
    });
}

#[test]
fn a_wildcard_covers_what_is_below_and_nothing_else() {
    world(table(vec![row("net/wild", "*.wild.example", Allow)]), |world| {
        assert!(world.run("tool", "print(get('a.wild.example'))").contains("reached"));
        for near in ["wild.example", "evilwild.example", "a.wild.example.evil.example"] {
            assert_eq!(world.run("tool", &format!("print(get('{near}'))")), "gaierror -3", "{near}");
        }
    });
}

#[test]
fn the_name_inside_must_be_the_name_that_was_dialled() {
    world(table(vec![row("net/all", "*", Allow)]), |world| {
        assert_eq!(world.run("tool", "print(tls('good.example', 'GOOD.example'))"), "b'SERVER HELLO'");
        assert_eq!(world.run("tool", "print(tls('good.example', 'bad.example'))"), ACCESS_DENIED);
        let (_, decision) = world.decision("good.example");
        assert_eq!(decision.verdict(), Allow);
        let denied =
            world.events.decisions().into_iter().find(|(_, decision)| decision.verdict() == Deny).unwrap().1;
        assert_eq!((&*denied.rule, &*action(&denied).observed_host), ("gate/name-mismatch", "bad.example"));

        for header in ["good.example", "good.example:80", "Good.Example."] {
            let answer = world.run("tool", &format!("print(get('good.example', 80, '{header}'))"));
            assert!(answer.contains("200 OK"), "{header}: {answer}");
        }
        let answer = world.run("tool", "print(get('good.example', 80, 'bad.example'))");
        assert!(answer.contains("403") && answer.contains("gate/name-mismatch"), "{answer}");
    });
}

#[test]
fn a_hello_in_many_small_segments_is_read_to_its_end() {
    world(table(vec![row("net/all", "*", Allow)]), |world| {
        let script = "
def slow(inside):
    s = connect('good.example', 443); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in hello(inside, 30):
        s.send(bytes([byte])); time.sleep(0.002)
    return attempt(lambda: s.recv(99))
print(slow('good.example')); print(slow('bad.example'))";
        assert_eq!(world.run("tool", script), format!("b'SERVER HELLO'\n{ACCESS_DENIED}"));
    });
}

#[test]
fn a_hello_without_a_name_goes_by_the_dialled_name() {
    world(table(vec![row("net/all", "good.example", Allow)]), |world| {
        assert_eq!(world.run("tool", "print(talk('good.example', 443, hello()))"), "b'SERVER HELLO'");
    });
}
