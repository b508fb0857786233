//! Connections that are read as HTTP: each request is decided by itself.

mod common;

use clawsec_core::pb;
use clawsec_core::pb::Verdict::{Allow, Ask, Deny, Hold, Log};
use common::http::{CLIENT, decided, http, run};
use common::play::{decision, progress};
use common::{action, row, table, until, world};

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
fn a_rows_address_ranges_hold_for_its_own_requests_and_observing_rows_only_tell() {
    let private = |row: pb::NetworkRow| pb::NetworkRow { host: "private.example".into(), ..row };
    let rows = table(vec![
        pb::NetworkRow { observe: true, ..private(http("net/watch", &["HEAD", "GET"], "/w", Deny)) },
        pb::NetworkRow {
            resolves_to: vec!["10.7.0.0/24".into()],
            ..private(http("net/read", &["GET"], "", Allow))
        },
        private(http("net/write", &["POST"], "", Allow)),
    ]);
    world(rows, |world| {
        let script = "
s = connect('private.example', 8088)
def say(method, path='/'): return '%d %s' % req(s, method, path, host='private.example')[:2]
print(say('POST').strip())
print(say('GET')[:5], say('GET', '/w')[:7])
print(say('POST').strip())
print(say('GET')[:5])";
        let out = run(world, script);
        let lines: Vec<_> = out.lines().collect();
        assert!(
            lines[0].starts_with("403 clawsec: access denied: private.example leads to a reserved address"),
            "{out}"
        );
        assert_eq!(lines[1], "200 G 200 GET");
        assert!(
            lines[2].starts_with("403 clawsec: access denied: the rule does not allow the address"),
            "{out}"
        );
        assert_eq!(lines[3], "200 G", "the connection goes on");
        let watched: Vec<_> =
            world.events.decisions().into_iter().filter(|(_, event)| event.rule == "net/watch").collect();
        assert_eq!(watched.len(), 1);
        let event = &watched[0].1;
        assert_eq!(
            (event.verdict(), event.observed(), event.observed_rule.as_str()),
            (Allow, Deny, "net/watch")
        );
        assert_eq!(action(event).http_path, "/w");
    });
}
