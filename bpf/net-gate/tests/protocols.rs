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
