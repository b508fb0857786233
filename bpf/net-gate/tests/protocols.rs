//! Rows that hold for some protocols only, and ways around them.

mod common;

use clawsec_core::pb;
use clawsec_core::pb::Verdict::{Allow, Deny};
use common::{row, table, world};

#[test]
fn rows_hold_for_the_protocol_of_the_first_bytes_and_waiting_is_no_way_around_them() {
    let only = |row: pb::NetworkRow, protocol: pb::ObservedProtocol| pb::NetworkRow {
        protocols: vec![protocol.into()],
        ..row
    };
    let rows = table(vec![
        only(row("net/no-tls", "good.example", Deny), pb::ObservedProtocol::Tls),
        pb::NetworkRow { http_methods: vec!["POST".into()], ..row("net/no-post", "good.example", Deny) },
        row("net/rest", "good.example", Allow),
        only(row("net/tls", "other.example", Allow), pb::ObservedProtocol::Tls),
        only(row("net/none", "wild.example", Allow), pb::ObservedProtocol::None),
    ]);
    world(rows, |world| {
        let script = "
def head(method): return ('%s / HTTP/1.1\\r\\nHost: good.example\\r\\n\\r\\n' % method).encode()
def late(port, data, host='good.example'):
    def work():
        s = connect(host, port); time.sleep(0.6); s.sendall(data); return s.recv(100)[:12]
    return attempt(work)
print(late(2525, b'SSH-2.0-x\\r\\n'))
print(late(2525, b'EHLO x\\r\\n'))
print(talk('good.example', 2525, hello('good.example')))
print(late(8088, head('GET')), late(8088, head('POST')), late(8088, b'post / HTTP/1.1\\r\\n\\r\\n'))
print(late(9001, hello('good.example')))
print(tls('other.example'), get('other.example')[:12])
print(late(2525, b'x', 'wild.example'), get('wild.example', 8088)[:12])";
        let out = world.run("tool", script);
        let lines: Vec<_> = out.lines().collect();
        let greeting = "b'220 welcome\\r'".to_owned();
        assert_eq!(lines[0], greeting, "the server spoke first");
        assert_eq!(lines[1], greeting);
        let alert = r"b'\x15\x03\x03\x00\x02\x021'";
        assert_eq!(lines[2], alert);
        assert_eq!(lines[3], "b'HTTP/1.1 200' b'HTTP/1.1 403' b'HTTP/1.1 403'");
        assert_eq!(lines[4], alert, "a ClientHello that comes late is one, too");
        assert_eq!(lines[5], "b'SERVER HELLO' b'HTTP/1.1 403'");
        assert_eq!(lines[6], format!("{greeting} b'HTTP/1.1 403'"));
    });
}

#[test]
fn a_beginning_that_passes_for_http_or_tls_is_refused_where_rows_look_at_protocols_and_there_only() {
    let web = |row: pb::NetworkRow| pb::NetworkRow {
        protocols: vec![pb::ObservedProtocol::Tls.into(), pb::ObservedProtocol::Http.into()],
        ..row
    };
    let rows = table(vec![
        web(row("net/no-web", "good.example", Deny)),
        row("net/rest", "good.example", Allow),
        row("net/any", "other.example", Allow),
    ]);
    world(rows, |world| {
        let script = "
def sunk(host, *parts):
    def work():
        s = connect(host, 9001)
        for part in parts: s.sendall(part); time.sleep(0.1)
        s.shutdown(socket.SHUT_WR); return s.recv(100)[:12]
    return attempt(work)
line = b'POST /x HTTP/1.1\\r\\n\\r\\n'
for parts in [(b' ' + line,), (b'\\x0c' + line,), (b'\\x1c' + line,), (b'\\t', line), (b'POST /x?\\0 HTTP/1.1\\r\\n\\r\\n',), (b'POST /x?\\0', b' HTTP/1.1\\r\\n'),
              (b'\\x80\\x2e\\1\\3\\3',), (b'\\x80', b'\\x2e', b'\\1\\3\\3'), (b'\\x16\\3\\1\\0\\0' + hello('good.example'),),
              (b' EHLO x\\r\\n',), (b'AMQP\\0\\0\\x09\\1',), (b'\\x80\\x2e\\2\\3\\3',)]:
    print(sunk('good.example', *parts), sunk('other.example', *parts) == b'%d' % len(b''.join(parts)))";
        let out = world.run("tool", script);
        let (http, alert) = ("b'HTTP/1.1 403' True", r"b'\x15\x03\x03\x00\x02\x021' True");
        let carried = ["b'9' True", "b'8' True", "b'5' True"];
        let expected = [&[http; 6][..], &[alert; 3], &carried].concat();
        assert_eq!(out.lines().collect::<Vec<_>>(), expected);
    });
}
