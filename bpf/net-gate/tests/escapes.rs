//! Ways out that are none, each beside the one that is.

mod common;

use clawsec_core::pb;
use clawsec_core::pb::Verdict::{Allow, Deny};
use common::servers::{OTHER, PRIVATE, PUBLIC};
use common::{action, range, row, table, until, world, world_with};

#[test]
fn an_address_is_reached_when_a_range_has_it_and_not_by_the_row_for_any_name() {
    world(table(vec![row("net/any", "*", Allow), range("net/range", "9.9.9.0/24", Allow)]), |world| {
        let answer = world.run("tool", &format!("print(get('{PUBLIC}'))"));
        assert!(answer.contains("reached 9.9.9.9:80"), "{answer}");
        let denied = world.run("tool", &format!("print(get('{OTHER}'))"));
        assert!(denied.contains("403") && denied.contains("rule default"), "{denied}");
        let (_, event) = world.decision(OTHER);
        assert_eq!((event.verdict(), &*action(&event).host), (Deny, ""));
        // A server name for an address is the client's own affair: the row decided.
        assert_eq!(
            world.run("tool", &format!("print(tls('{PUBLIC}', 'whatever.example'))")),
            "b'SERVER HELLO'"
        );
    });
}

#[test]
fn a_name_with_a_private_answer_is_refused_unless_its_row_opens_the_range() {
    let mut opened = row("net/opened", "private.example", Allow);
    opened.resolves_to = vec!["10.7.0.0/16".into()];
    let mut closed = table(vec![row("net/closed", "private.example", Allow)]);
    closed.hosts.insert("meta.example".into(), "169.254.169.254".into());
    closed.rows.push(row("net/meta", "meta.example", Allow));
    closed.rows.push(range("net/all", "0.0.0.0/0", Allow));
    world(table(vec![opened]), |world| {
        assert!(world.run("tool", "print(get('private.example'))").contains("reached 10.7.0.2"));
    });
    world(closed, |world| {
        let answer = world.run("tool", "print(get('private.example'))");
        assert!(answer.contains("403") && answer.contains("10.7.0.2 is a private address"), "{answer}");
        let answer = world.run("tool", "print(get('meta.example'))");
        assert!(answer.contains("403") && answer.contains("cloud metadata"), "{answer}");
        // All addresses are not those that are reserved, nor those of the host itself.
        let answer = world.run("tool", &format!("print(get('{PRIVATE}')); print(get('169.254.169.254'))"));
        assert_eq!(answer.matches("403").count(), 2, "{answer}");
        assert!(world.run("tool", &format!("print(get('{OTHER}'))")).contains("reached 8.7.6.5"));
    });
}

#[test]
fn ipv6_has_no_network_and_a_mapped_address_is_judged_as_what_it_is() {
    world(table(vec![range("net/range", "9.9.9.9", Allow)]), |world| {
        let script = "
def six(address, port):
    s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM); s.settimeout(5)
    s.connect((address, port)); s.sendall(b'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); return drain(s)[:12]
for a in ('::ffff:9.9.9.9', '::ffff:8.7.6.5', '2606:4700::1111', 'fe80::1', '64:ff9b::909:909'):
    print(attempt(lambda: six(a, 80)))
u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
for a in ('2606:4700::1111', '::ffff:9.9.9.9'):
    print(attempt(lambda: u.sendto(b'x', (a, 53))))";
        let lines = world.run("tool", script);
        let allowed = "b'HTTP/1.1 200'\nb'HTTP/1.1 403'";
        let refused = "ENETUNREACH\nENETUNREACH\nENETUNREACH\nENETUNREACH\nENETUNREACH";
        let lines = lines.replace("EINVAL", "ENETUNREACH");
        assert_eq!(lines, format!("{allowed}\n{refused}"));
        let seen = until("the kernel's refusal is told", || {
            let decisions = world.events.decisions();
            decisions.into_iter().find(|(_, event)| action(event).address == "2606:4700::1111")
        });
        assert_eq!((&*seen.1.rule, &*seen.1.layer, &*seen.0.subject), ("bpf/ipv6", "bpf", "tool"));
    });
}

#[test]
fn only_tcp_and_the_name_server_get_anywhere() {
    world(table(vec![range("net/range", "0.0.0.0/0", Allow)]), |world| {
        let script = "
def udp_send(): socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('9.9.9.9', 53))
def udp_connect(): socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('9.9.9.9', 443))
def icmp():
    open('/proc/sys/net/ipv4/ping_group_range', 'w').write('0 2147483647')
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    s.sendto(b'\\x08\\0\\0\\0\\0\\0\\0\\0', ('9.9.9.9', 0))
def raw():
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253); s.sendto(b'x' * 20, ('9.9.9.9', 0))
def raw_icmp():
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP); s.sendto(b'\\x08' + b'\\0' * 7, ('9.9.9.9', 0))
def whole_header():
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    s.sendto(b'\\x45\\0\\0\\x1c' + b'\\0' * 4 + b'\\x40\\x11\\0\\0' + bytes([1, 2, 3, 4, 9, 9, 9, 9]) + b'\\0\\x35\\0\\x35\\0\\x08\\0\\0', ('9.9.9.9', 0))
def sctp(): socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132).connect(('9.9.9.9', 80))
for work in (udp_send, udp_connect, icmp, raw, raw_icmp, whole_header, sctp):
    r = attempt(work); print(work.__name__, 'went' if r is None else 'refused')
print('dns', rcode(dns(query('nothing.example'))))
print('tcp', get('9.9.9.9')[:15])";
        let lines = world.run("tool", script);
        let refused = ["udp_send", "udp_connect", "icmp", "raw", "raw_icmp", "whole_header", "sctp"];
        let refused: String = refused.iter().map(|work| format!("{work} refused\n")).collect();
        assert_eq!(lines, format!("{refused}dns 5\ntcp b'HTTP/1.1 200 OK'"));
    });
}

#[test]
fn fast_open_and_multipath_go_through_the_gate_like_any_other() {
    world(table(vec![range("net/range", "9.9.9.9", Allow)]), |world| {
        let script = "
R = b'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'
def fast(a):
    s = socket.socket(); s.sendto(R, socket.MSG_FASTOPEN, (a, 80)); return drain(s)[:12]
def multi(a):
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); s.settimeout(5); s.connect((a, 80)); s.sendall(R)
    return drain(s)[:12]
for a in ('9.9.9.9', '8.7.6.5'):
    print(attempt(lambda: fast(a))); print(attempt(lambda: multi(a)))
s = socket.socket(); print(attempt(lambda: s.sendto(R, socket.MSG_FASTOPEN, ('127.0.0.1', 9))))";
        let lines = world.run("tool", script);
        let lines: Vec<_> = lines.lines().collect();
        assert_eq!(lines[0], "b'HTTP/1.1 200'");
        assert_eq!(lines[2], "b'HTTP/1.1 403'");
        for (line, expected) in [(lines[1], "b'HTTP/1.1 200'"), (lines[3], "b'HTTP/1.1 403'")] {
            assert!(line == expected || line == "EPROTONOSUPPORT" || line == "ENOPROTOOPT", "{line}");
        }
        assert_eq!(lines[4], "EPERM");
    });
}

#[test]
fn a_subject_reaches_its_own_loopback_ports_and_no_others() {
    let subjects = vec![
        pb::Subject { name: "gateway".into(), loopback_any: true, ..Default::default() },
        pb::Subject { name: "tool".into(), loopback_ports: vec![3000], ..Default::default() },
    ];
    world_with(table(vec![]), subjects, |world| {
        let server = "
for family, a in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):
    for port in (3000, 18789):
        s = socket.socket(family); s.bind((a, port)); s.listen()
        u = socket.socket(family, socket.SOCK_DGRAM); u.bind((a, port))
        globals()['k%s%d' % (a, port)] = (s, u)
print('begun 100', flush=True); time.sleep(25)";
        let mut server = world.spawn("gateway", server);
        let client = "
def to(family, a, port, kind=socket.SOCK_STREAM):
    s = socket.socket(family, kind); s.settimeout(3)
    def work():
        if kind == socket.SOCK_DGRAM: s.sendto(b'x', (a, port))
        else: s.connect((a, port))
        return 'ok'
    return attempt(work)
I, S, D = socket.AF_INET, socket.AF_INET6, socket.SOCK_DGRAM
for port in (3000, 18789):
    print(port, to(I, '127.0.0.1', port), to(I, '127.9.9.9', port) in ('EPERM', 'ECONNREFUSED'), to(S, '::1', port), to(S, '::ffff:127.0.0.1', port),
          to(I, '0.0.0.0', port), to(S, '::', port), to(S, '::ffff:0.0.0.0', port), to(I, '127.0.0.1', port, D), to(S, '::1', port, D), to(S, '::ffff:127.0.0.1', port, D))";
        common::net::begun(&mut server);
        let tool = world.run("tool", client);
        let all = |port: u16, word: &str| format!("{port} {word} True {}", [word; 8].join(" "));
        assert_eq!(tool, format!("{}\n{}", all(3000, "ok"), all(18789, "EPERM")));
        let gateway = world.run("gateway", client);
        assert_eq!(gateway, format!("{}\n{}", all(3000, "ok"), all(18789, "ok")));
        let told = world.events.decisions().into_iter().any(|(event, decision)| {
            event.subject == "tool" && decision.rule == "bpf/loopback" && action(&decision).port == 18789
        });
        assert!(told);
        server.kill().unwrap();
        server.wait().unwrap();
    });
}

#[test]
fn a_socket_that_another_subject_made_does_not_carry_its_rights() {
    world(table(vec![row("net/good", "good.example", Allow)]), |world| {
        let cgroup = world.scope.subject("tool").unwrap().cgroup.join("cgroup.procs");
        let mut table = table(vec![row("net/good", "good.example", Allow)]);
        table.rows[0].subjects = vec!["gateway".into()];
        world.net().apply(&table, 2).unwrap();
        let script = format!(
            "
s = socket.socket(); l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen()
port = l.getsockname()[1]; address = socket.gethostbyname('good.example')
print(attempt(lambda: connect('127.0.0.1', port)) and 'as gateway')
open('{}', 'w').write(str(os.getpid()))
print(attempt(lambda: s.connect(('127.0.0.1', port))))
t = socket.socket(); t.connect((address, 80)); t.sendall(b'GET / HTTP/1.1\\r\\nHost: good.example\\r\\n\\r\\n')
print(drain(t)[:12])",
            cgroup.display()
        );
        assert_eq!(world.run("gateway", &script), "as gateway\nEPERM\nb'HTTP/1.1 403'");
    });
}

#[test]
fn a_process_of_no_subject_gets_nothing() {
    world(table(vec![range("net/range", "9.9.9.9", Allow)]), |world| {
        // As something that was put into the namespace from outside.
        let netns = std::fs::File::open(&world.netns).unwrap();
        let refused = std::thread::spawn(move || {
            nix::sched::setns(&netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let mut stream = std::net::TcpStream::connect((PUBLIC, 80)).ok()?;
            std::io::Read::read(&mut stream, &mut [0; 1]).ok()
        });
        assert_eq!(refused.join().unwrap(), None);
        assert_eq!(world.decision(PUBLIC).1.rule, "gate/unattributed");
        assert!(world.run("tool", &format!("print(get('{PUBLIC}'))")).contains("200 OK"));
    });
}
