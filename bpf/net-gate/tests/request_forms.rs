//! Requests that a server could read differently than the gate, or that would take the connection out of its sight.

mod common;

use clawsec_core::pb::Verdict::{Allow, Deny};
use common::http::{decided, http, run};
use common::{row, table, world};

#[test]
fn another_host_in_any_request_is_refused() {
    let rows = table(vec![http("net/read", &["GET"], "", Allow), row("net/other", "other.example", Allow)]);
    world(rows, |world| {
        let script = "
s = connect('good.example', 8088)
def say(*a, **k):
    try: status, text, _ = req(s, *a, **k)
    except Exception as e: return type(e).__name__
    return '%d %s' % (status, text.strip().split('\\r\\n')[0])
print(say('GET', '/'))
print(say('GET', '/', host='other.example'))
print(say('GET', 'http://other.example/'))
print(say('GET', 'http://good.example/abs?x'))
print(say('GET', '/', more='Host: other.example\\r\\n'))
print(say('GET', '/', host='good.example:8088'))
print(say('GET', '/', more='Connection: close, Host\\r\\n'))
s = connect('good.example', 8088); print(say('GET', 'http://other.example/', host='other.example'))";
        let out = run(world, script);
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines[0], "200 GET / HTTP/1.1");
        assert!(lines[2].contains("names two hosts (rule gate/http-request)"), "{}", lines[2]);
        for line in [lines[1], lines[7]] {
            assert!(
                line.starts_with(
                    "403 clawsec: access denied: the connection was made to good.example but asks"
                ),
                "{line}"
            );
        }
        assert_eq!(lines[3], "200 GET /abs?x HTTP/1.1", "the server gets the form for servers");
        assert!(lines[4].contains("names two hosts (rule gate/http-request)"), "{}", lines[4]);
        assert_eq!(lines[5..7], ["200 GET / HTTP/1.1", "200 GET / HTTP/1.1"]);
        assert!(decided(world).iter().any(|(rule, ..)| rule == "gate/name-mismatch"));
    });
}

#[test]
fn a_path_that_servers_read_differently_is_refused_on_the_wire_as_it_was_written() {
    let rows = table(vec![http("net/no", &[], "/admin.*", Deny), row("net/rest", "good.example", Allow)]);
    world(rows, |world| {
        let script = "
s = connect('good.example', 8088)
for path in ['/x/../admin', '/x/%2e%2e/admin', '//admin', '/x%2fadmin', '/./admin', 'http://good.example//admin', '/x/..?q', '/%61dmin', '/admin?x', '/x?/../admin', '/x/y..z']:
    status, text, _ = req(s, 'GET', path)
    print(status, text.split('(rule ')[-1].split(')')[0] if status == 403 else text.split(' ')[1])";
        let unclear = ["403 gate/http-path"; 7];
        let expected =
            [&unclear[..], &["403 net/no", "403 net/no", "200 /x?/../admin", "200 /x/y..z"]].concat();
        assert_eq!(run(world, script), expected.join("\n"));
        assert!(decided(world).contains(&(
            "gate/http-path".into(),
            Deny,
            "GET".into(),
            "/x/%2e%2e/admin".into()
        )));
    });
}

#[test]
fn a_path_is_refused_in_each_form_that_a_server_may_take_it_for() {
    let denied = r"/caf%C3%A9|/caf\x{E9}|/a/\[x\]|/admin|/secret(?:/[^/]*)+";
    let rows = table(vec![
        http("net/no", &[], denied, Deny),
        http("net/some", &["GET"], "/a/.*|/caf%C3%A8|/caf\u{e8}|/adm.*", Allow),
    ]);
    world(rows, |world| {
        let script = "
s = connect('good.example', 8088)
for path in ['/caf%C3%A9', '/caf%c3%a9', '/c%61f%c3%A9', '/a/[x]', '/a/%5Bx%5D', '/a/%5bx]', '/admin', '/secret/x',
             '/admin;x=1', '/secret;a/x', '/admin%3bx', '/caf%E9',
             '/caf%C3%A8', '/a/%5By%5D', '/admin,x=1', '/caf%c3%a8', '/secret,a/x']:
    status, text, _ = req(s, 'GET', path)
    print(status, text.split('(rule ')[-1].split(')')[0] if status == 403 else text.split(' ')[1])";
        let expected = [
            &["403 net/no"; 8][..],
            &["403 gate/http-path"; 4],
            &["200 /caf%C3%A8", "200 /a/%5By%5D", "200 /admin,x=1"],
            &["403 default"; 2],
        ]
        .concat();
        assert_eq!(run(world, script), expected.join("\n"));
    });
}

#[test]
fn what_would_leave_the_gates_sight_is_refused() {
    world(
        table(vec![http("net/any", &[], "/.*", Allow), row("net/any-host", "good.example", Allow)]),
        |world| {
            let script = "
def once(request):
    s = connect('good.example', 8088)
    s.sendall(request); return first(s)
def first(s):
    try: return s.recv(4096).decode().replace('\\r\\n', '|').strip()
    except OSError as e: return name(e)
print(once(b'CONNECT good.example:8088 HTTP/1.1\\r\\nHost: good.example:8088\\r\\n\\r\\n'))
print(once(head('GET', '/', more='Upgrade: websocket\\r\\nConnection: Upgrade\\r\\n')))
print(once(head('GET', '/switch')))
print(once(b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n'))
print(once(head('post', '/')))
print(once(head('GET', '/', more='Content-Length: 3\\r\\nTransfer-Encoding: chunked\\r\\n') + b'0\\r\\n\\r\\nGET /smuggled HTTP/1.1\\r\\n\\r\\n'))
print(once(head('GET', '/', more='Content-Length: 3\\r\\nContent-Length: 4\\r\\n') + b'abcd'))
s = connect('good.example', 8088); print(req(s, 'GET', '/')[0]); print(ask(s, head('get', '/'))[0]); s.sendall(b'\\0\\0\\r\\n\\r\\n'); print(first(s).split('|')[0])";
            let out = run(world, script);
            let lines: Vec<_> = out.lines().collect();
            assert!(
                lines[0].starts_with("HTTP/1.1 403") && lines[0].contains("CONNECT is refused"),
                "{}",
                lines[0]
            );
            assert!(
                lines[1].starts_with("HTTP/1.1 403") && lines[1].contains("Upgrade is refused"),
                "{}",
                lines[1]
            );
            assert!(lines[2].starts_with("HTTP/1.1 502"), "{}", lines[2]);
            assert!(lines[3].starts_with("HTTP/1.1 403") && lines[3].contains("HTTP/2"), "{}", lines[3]);
            assert!(lines[4].starts_with("HTTP/1.1 403"), "{}", lines[4]);
            // hyper goes by the chunks, as RFC 9112, 6.3 says, forwards no length, and takes nothing more.
            assert!(
                lines[5].starts_with("HTTP/1.1 200") && lines[5].contains("connection: close"),
                "{}",
                lines[5]
            );
            assert!(!lines[5].contains("Length: 3") && !out.contains("smuggled"), "{}", lines[5]);
            assert!(lines[6].starts_with("HTTP/1.1 400"), "{}", lines[6]);
            assert_eq!(lines[7..], ["200", "403", "HTTP/1.1 400 Bad Request"]);
            let rules: Vec<String> = decided(world)
                .into_iter()
                .filter(|(_, verdict, ..)| *verdict == Deny)
                .map(|it| it.0)
                .collect();
            assert_eq!(rules.iter().filter(|rule| *rule == "gate/http-request").count(), 6, "{rules:?}");
            assert!(!decided(world).iter().any(|(.., path)| path == "/smuggled"));
        },
    );
}

#[test]
fn a_refusal_is_read_although_the_body_was_not() {
    world(table(vec![http("net/read", &["GET"], "", Allow)]), |world| {
        let script = "
s = connect('good.example', 8088)
s.sendall(head('POST', '/', body='x' * 200000)); time.sleep(0.3)
r = http.client.HTTPResponse(s); r.begin(); print(r.status, r.read().decode().strip())";
        assert_eq!(run(world, script), "403 clawsec: access denied: no rule allows it (rule default)");
    });
}
