//! Connections that are read as HTTP: each request is decided by itself, and what cannot be read is refused.

mod common;

use clawsec_core::pb;
use clawsec_core::pb::Verdict::{Allow, Ask, Deny, Hold, Log};
use common::play::{decision, progress};
use common::{World, action, row, table, until, world};

/// `ask(s, request)` gives status and body of the answer; `head` makes a request; `req` does both.
const CLIENT: &str = "
import http.client
def head(method, path, host='good.example', more='', body=''):
    length = 'Content-Length: %d\\r\\n' % len(body) if body else ''
    return ('%s %s HTTP/1.1\\r\\nHost: %s\\r\\n%s%s\\r\\n%s' % (method, path, host, length, more, body)).encode()
def ask(s, request, method='GET'):
    s.sendall(request)
    r = http.client.HTTPResponse(s, method=method); r.begin()
    return r.status, r.read().decode(), r
def req(s, method, path, **more): return ask(s, head(method, path, **more), method)
";

fn run(world: &World, script: &str) -> String {
    world.run("tool", &format!("{CLIENT}\n{script}"))
}

/// A row about requests to `good.example`.
fn http(rule: &str, methods: &[&str], path: &str, verdict: pb::Verdict) -> pb::NetworkRow {
    pb::NetworkRow {
        http_methods: methods.iter().map(|method| (*method).into()).collect(),
        http_path: path.into(),
        ..row(rule, "good.example", verdict)
    }
}

/// Rule, verdict, method and path of each decision about the host so far.
fn decided(world: &World) -> Vec<(String, pb::Verdict, String, String)> {
    let all = world.events.decisions().into_iter().filter(|(_, event)| action(event).host == "good.example");
    all.map(|(_, event)| {
        let action = action(&event);
        (event.rule.clone(), event.verdict(), action.http_method.clone(), action.http_path.clone())
    })
    .collect()
}

#[test]
fn each_request_of_a_kept_connection_is_decided_by_itself() {
    let rows = table(vec![
        http("net/read", &["GET"], "/api/.*", Allow),
        http("net/log", &["POST"], "/log", Log),
        http("net/no", &["DELETE"], "", Deny),
    ]);
    world(rows, |world| {
        let script = "
s = connect('good.example', 8088)
for method, path, body in [('GET', '/api/a?q=1', ''), ('DELETE', '/api/a', ''), ('POST', '/log', 'x' * 10), ('POST', '/api/a', ''), ('GET', '/api/b', '')]:
    status, text, _ = req(s, method, path, body=body)
    print(status, text.split('\\r\\n')[0].strip())";
        assert_eq!(
            run(world, script),
            "200 GET /api/a?q=1 HTTP/1.1\n\
             403 clawsec: access denied: net/no says so (rule net/no)\n\
             200 POST /log HTTP/1.1\n\
             403 clawsec: access denied: no rule allows it (rule default)\n\
             200 GET /api/b HTTP/1.1"
        );
        let expected = [
            ("net/read", Allow, "GET", "/api/a"),
            ("net/no", Deny, "DELETE", "/api/a"),
            ("net/log", Log, "POST", "/log"),
            ("default", Deny, "POST", "/api/a"),
            ("net/read", Allow, "GET", "/api/b"),
        ];
        let expected =
            expected.map(|(rule, verdict, method, path)| (rule.into(), verdict, method.into(), path.into()));
        assert_eq!(decided(world), expected);
        let (event, decision) = world.decision("good.example");
        assert_eq!(event.subject, "tool");
        assert_eq!(action(&decision).observed_host, "good.example");
        assert_eq!(action(&decision).observed_protocol(), pb::ObservedProtocol::Http);
    });
}

#[test]
fn bodies_chunks_and_trailers_go_through_both_ways() {
    world(table(vec![http("net/any", &["GET", "POST", "PUT", "HEAD"], "", Allow)]), |world| {
        let script = "
s = connect('good.example', 8088)
big = 'x' * 3000000
status, text, _ = req(s, 'PUT', '/big', body=big)
print(status, text.endswith(big), len(text) - len(big) < 200)
chunked = head('POST', '/up', more='Transfer-Encoding: chunked\\r\\nTrailer: X-Sum\\r\\n') + b'4\\r\\nwxyz\\r\\n0\\r\\nX-Sum: end\\r\\n\\r\\n'
status, text, _ = ask(s, chunked)
print(status, 'wxyz' in text, 'x-sum: end' in text.lower(), 'transfer-encoding: chunked' in text.lower())
s.sendall(head('GET', '/chunks', more='TE: trailers\\r\\n'))
got = b''
while not got.endswith(b'0\\r\\n\\r\\n') and b'X-Sum: 5\\r\\n\\r\\n' not in got and b'x-sum: 5\\r\\n\\r\\n' not in got: got += s.recv(4096)
print(got.split(b'\\r\\n\\r\\n', 1)[1])
s = connect('good.example', 8088); s.sendall(head('POST', '/half', body='abc')); s.shutdown(socket.SHUT_WR)
print(drain(s).endswith(b'abc'))
s = connect('good.example', 8088)
status, text, r = req(s, 'GET', '/close'); print(status, s.recv(1))";
        let out = run(world, script);
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines[0], "200 True True");
        assert_eq!(lines[1], "200 True True True");
        assert!(lines[2].to_lowercase().contains("x-sum: 5"), "{}", lines[2]);
        assert_eq!(lines[3..], ["True", "200 b''"]);
    });
}

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
fn a_held_request_waits_for_its_own_answer_and_the_connection_goes_on() {
    world(table(vec![http("net/read", &["GET"], "", Allow), http("net/ask", &[], "", Ask)]), |world| {
        let script = format!("{CLIENT}
s = connect('good.example', 8088)
print('begun 100', req(s, 'GET', '/a')[0], flush=True)
print(req(s, 'POST', '/b')[0], req(s, 'GET', '/c')[0], req(s, 'POST', '/d')[1].strip(), req(s, 'POST', '/b')[0])");
        let child = world.spawn("tool", &script);
        for (path, verdict, cached) in [("/b", Allow, true), ("/d", Deny, false)] {
            let (question, mut channel) = world.script.take();
            let Some(pb::question::Action::Network(asked)) = question.action else {
                panic!("about the network")
            };
            assert_eq!((asked.http_method.as_str(), asked.http_path.as_str()), ("POST", path));
            assert_eq!((asked.rule.as_str(), asked.host.as_str()), ("net/ask", "good.example"));
            channel.decisions.send(decision(Hold)).unwrap();
            assert!(matches!(progress(&mut channel), Some(clawsec_core::ask::Progress::Held(_))));
            let scope = if cached { pb::CacheScope::File } else { pb::CacheScope::None };
            channel.decisions.send(pb::Decision { cache_scope: scope.into(), ..decision(verdict) }).unwrap();
            assert!(matches!(progress(&mut channel), Some(clawsec_core::ask::Progress::Settled(..))));
        }
        let out = common::net::finish(child);
        assert_eq!(
            out,
            "begun 100 200\n200 200 clawsec: access denied: a person said so (rule network/asked) 200"
        );
        assert_eq!(world.script.asked(), 2, "the answer for /b was kept for /b only");
    });
}

#[test]
fn a_client_that_leaves_while_its_request_is_held_takes_the_question_back() {
    world(table(vec![http("net/ask", &[], "", Ask)]), |world| {
        let script = format!(
            "{CLIENT}\ns = connect('good.example', 8088); s.sendall(head('POST', '/x', body='abc')); time.sleep(0.5)"
        );
        let child = world.spawn("tool", &script);
        let (_, mut channel) = world.script.take();
        channel.decisions.send(decision(Hold)).unwrap();
        let _ = progress(&mut channel);
        common::net::finish(child);
        assert!(matches!(progress(&mut channel), Some(clawsec_core::ask::Progress::Gone(_))));
        until("the connection is gone", || (world.net().connections() == 0).then_some(()));
    });
}

#[test]
fn a_new_table_holds_for_the_next_request_and_ends_connections_that_it_cannot_read() {
    let read = || table(vec![http("net/read", &["GET"], "", Allow)]);
    world(read(), move |world| {
        let script = format!(
            "{CLIENT}
s = connect('good.example', 8088)
print('begun 100', req(s, 'GET', '/a')[0], flush=True)
time.sleep(1)
print(req(s, 'POST', '/b')[0], attempt(lambda: req(s, 'GET', '/c')[0]))"
        );
        let mut child = world.spawn("tool", &script);
        common::net::begun(&mut child);
        let post = table(vec![http("net/any", &["GET", "POST"], "/[ab]", Allow)]);
        assert_eq!(world.net().apply(&post, 2).unwrap(), 0, "what was allowed stands");
        assert_eq!(common::net::finish(child), "200\n200 403");

        // A connection that was only spliced cannot be read from its middle.
        world.net().apply(&table(vec![row("net/all", "good.example", Allow)]), 3).unwrap();
        let script = format!(
            "{CLIENT}
s = connect('good.example', 8088)
print('begun 100', req(s, 'GET', '/a')[0], flush=True)
time.sleep(1)
print(attempt(lambda: req(s, 'GET', '/a')[0]))"
        );
        let mut child = world.spawn("tool", &script);
        common::net::begun(&mut child);
        assert_eq!(world.net().apply(&read(), 4).unwrap(), 1);
        assert_eq!(common::net::finish(child), "200\nECONNRESET");
    });
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
