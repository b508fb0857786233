//! A new table, the cut, published ports, many connections, and bytes that make no sense.

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use clawsec_core::pb;
use clawsec_core::pb::Verdict::{Allow, Ask, Deny};
use common::net::{begun, finish};
use common::play::{decision, progress};
use common::servers::PUBLIC;
use common::{action, range, row, table, until, world};

/// Prints a line for each thing that happens to an endless transfer.
const TRANSFER: &str = "
s = connect('HOST', 9000)
print('begun', len(s.recv(100)), flush=True)
def rest():
    while s.recv(1 << 16): pass
    return 'end'
print(attempt(rest))";

fn transfer(host: &str) -> String {
    TRANSFER.replace("HOST", host)
}

#[test]
fn a_new_table_holds_at_once_and_resets_what_it_denies_and_nothing_else() {
    let good = row("net/good", "good.example", Allow);
    let other = row("net/other", "other.example", Allow);
    world(table(vec![good.clone(), other.clone()]), move |world| {
        let mut first = world.spawn("tool", &transfer("good.example"));
        let mut second = world.spawn("tool", &transfer("other.example"));
        begun(&mut first);
        begun(&mut second);
        let ended =
            world.net().apply(&table(vec![other, row("net/now-not", "good.example", Deny)]), 2).unwrap();
        assert_eq!((ended, world.net().epoch()), (1, 2));
        assert_eq!(finish(first), "ECONNRESET");
        assert_eq!(world.run("tool", "print(get('good.example'))"), "gaierror -3");
        assert!(world.run("tool", "print(get('other.example'))").contains("reached"));
        assert!(second.try_wait().unwrap().is_none(), "the other transfer goes on");
        let told = world.events.decisions().into_iter().any(|(_, event)| event.rule == "net/now-not");
        assert!(told);

        let mut broken = row("net/broken", "a*b", Allow);
        broken.subjects = vec!["tool".into()];
        assert!(world.net().apply(&table(vec![broken]), 3).is_err());
        assert_eq!(world.net().epoch(), 2, "the old table stays");
        second.kill().unwrap();
        second.wait().unwrap();
    });
}

#[test]
fn where_a_new_table_asks_an_answer_stands_and_a_rows_allowance_does_not() {
    world(
        table(vec![row("net/good", "good.example", Allow), row("net/ask", "held.example", Ask)]),
        |world| {
            world.script.answer(vec![decision(Allow)]);
            let mut by_row = world.spawn("tool", &transfer("good.example"));
            let mut by_answer = world.spawn("tool", &transfer("held.example"));
            begun(&mut by_row);
            begun(&mut by_answer);
            let asking = table(vec![row("net/ask", "*", Ask)]);
            assert_eq!(world.net().apply(&asking, 2).unwrap(), 1);
            assert_eq!(finish(by_row), "ECONNRESET");
            assert!(by_answer.try_wait().unwrap().is_none());
            by_answer.kill().unwrap();
            by_answer.wait().unwrap();
        },
    );
}

#[test]
fn an_observing_row_tells_and_lets_the_next_row_decide() {
    let mut watch = row("net/watch", "*", Deny);
    watch.observe = true;
    world(table(vec![watch, row("net/good", "good.example", Allow)]), |world| {
        assert!(world.run("tool", "print(get('good.example'))").contains("reached"));
        let events = world.events.decisions();
        let watched = events.iter().find(|(_, event)| event.rule == "net/watch").expect("told").1.clone();
        assert_eq!((watched.verdict(), watched.observed()), (Allow, Deny));
        assert!(events.iter().any(|(_, event)| event.rule == "net/good" && event.verdict() == Allow));
    });
}

#[test]
fn the_cut_ends_live_and_held_connections_within_the_call_and_no_new_one_is_made() {
    world(
        table(vec![row("net/good", "good.example", Allow), row("net/ask", "held.example", Ask)]),
        |world| {
            let port = pb::PublishedPort { sandbox_port: 18_789, ..Default::default() };
            let port = world.net().publish(&port).unwrap();
            let mut live = world.spawn("tool", &transfer("good.example"));
            begun(&mut live);
            let held = world.spawn("tool", "print(get('held.example'))");
            let (_, mut channel) = world.script.take();
            let address = world.run("tool", "print(socket.gethostbyname('good.example'))");
            assert_eq!(world.net().cut(), 2);
            assert_eq!(world.net().cut(), 0);
            assert_eq!(finish(live), "ECONNRESET");
            assert_eq!(finish(held), "ECONNRESET");
            assert!(matches!(progress(&mut channel), Some(clawsec_core::ask::Progress::Gone(_))));
            assert_eq!(world.run("tool", &format!("print(get('{address}'))")), "ECONNREFUSED");
            assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
            let again = pb::PublishedPort { sandbox_port: 1, ..Default::default() };
            assert!(world.net().publish(&again).is_err());
        },
    );
}

#[test]
fn a_published_port_reaches_the_sandbox_and_only_that_port() {
    world(table(vec![]), |world| {
        let server = "
l = socket.socket(); l.bind(('127.0.0.1', 18789)); l.listen(); print('begun 100', flush=True)
while True:
    s, peer = l.accept(); s.sendall(b'hello ' + s.recv(99)); s.close()";
        let mut server = world.spawn("gateway", server);
        begun(&mut server);
        let publish = |sandbox_port| {
            let port = pb::PublishedPort { host_ip: "127.0.0.1".into(), sandbox_port, ..Default::default() };
            world.net().publish(&port).unwrap()
        };
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, publish(18_789))).unwrap();
        client.write_all(b"host").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello host");
        let mut nobody = TcpStream::connect((Ipv4Addr::LOCALHOST, publish(18_790))).unwrap();
        nobody.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert!(nobody.read(&mut [0; 1]).is_err());
        server.kill().unwrap();
        server.wait().unwrap();
    });
}

#[test]
fn a_name_that_the_systems_resolver_knows_is_reached_unless_it_leads_inside() {
    let server = std::fs::read_to_string("/etc/resolv.conf").unwrap();
    let server = server.lines().find_map(|line| line.strip_prefix("nameserver ")).unwrap().trim().to_owned();
    for (answer, reached) in [(Ipv4Addr::new(9, 9, 9, 9), true), (Ipv4Addr::new(10, 7, 0, 2), false)] {
        let server = server.clone();
        world(table(vec![row("net/all", "*", Allow)]), move |world| {
            if !server.starts_with("127.") {
                common::net::ip(&format!("addr add {server}/32 dev lo"));
            }
            common::servers::name_server(&server, answer);
            let got = world.run("tool", "print(get('resolved.example'))");
            if reached {
                assert!(got.contains("reached 9.9.9.9:80"), "{got}");
            } else {
                assert!(got.contains("403") && got.contains("10.7.0.2 is a private address"), "{got}");
            }
        });
    }
}

#[test]
fn a_server_that_is_not_there_is_told_in_the_clients_protocol() {
    let mut rows = table(vec![row("net/all", "*", Allow)]);
    rows.hosts.insert("down.example".into(), "8.7.6.4".into());
    world(rows, |world| {
        common::net::ip("route add unreachable 8.7.6.4/32");
        let http = world.run("tool", "print(get('down.example'))");
        assert!(http.contains("502 Bad Gateway") && http.contains("8.7.6.4:80"), "{http}");
        assert_eq!(world.run("tool", "print(tls('down.example'))"), "b'\\x15\\x03\\x03\\x00\\x02\\x02P'");
        assert!(world.run("tool", "print(talk('good.example', 9999))").starts_with("ECONNRESET"));
        let (_, event) = world.decision("down.example");
        assert_eq!(event.verdict(), Allow);
        assert!(event.message.starts_with("allowed, but"), "{}", event.message);
    });
}

#[test]
fn a_hundred_connections_at_once_all_get_their_own_answer() {
    world(
        table(vec![row("net/good", "good.example", Allow), range("net/other", "8.7.6.5", Allow)]),
        |world| {
            let script = "
socket.gethostbyname('good.example'); found = []
def one(i):
    host, at = (('good.example', b'9.9.9.9'), ('8.7.6.5', b'8.7.6.5'))[i % 2]
    found.append(b'reached ' + at in get(host))
all = [threading.Thread(target=one, args=(i,)) for i in range(100)]
[t.start() for t in all]; [t.join() for t in all]; print(len(found), all and sum(found))";
            assert_eq!(world.run("tool", script), "100 100");
            until("every one is over", || (world.net().connections() == 0).then_some(()));
        },
    );
}

#[test]
fn much_is_carried_whole_and_the_end_of_one_direction_is_passed_on() {
    world(table(vec![row("net/good", "good.example", Allow)]), |world| {
        let script = "
s = connect('good.example', 9001); block = b'x' * (1 << 20)
for i in range(100): s.sendall(block)
s.shutdown(1); print(drain(s))";
        let started = Instant::now();
        assert_eq!(world.run("tool", script), format!("b'{}'", 100 << 20));
        println!("100 MiB in {:?}", started.elapsed());
    });
}

#[test]
fn garbage_is_survived() {
    world(table(vec![row("net/good", "*", Allow), range("net/range", PUBLIC, Allow)]), |world| {
        let script = "
import random; r = random.Random(7); q = query('good.example')
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.connect(('127.0.0.53', 53))
for i in range(3000):
    p = bytearray(q if i % 2 else r.randbytes(r.randrange(0, 80)))
    for _ in range(r.randrange(0, 4)):
        if p: p[r.randrange(len(p))] = r.randrange(256)
    attempt(lambda: u.send(bytes(p[:r.randrange(0, len(p) + 1)])))
print('bad', rcode(dns(b'\\x12\\x34\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\xc0\\x0c\\0\\1\\0\\1')))
seeds = [hello('good.example'), b'GET / HTTP/1.1\\r\\nHost: good.example\\r\\n\\r\\n', b'']
for i in range(60):
    p = bytearray(seeds[i % 3] + r.randbytes(r.randrange(0, 300)))
    for _ in range(r.randrange(1, 6)):
        if p: p[r.randrange(len(p))] = r.randrange(256)
    s = connect('good.example', r.choice((80, 443, 2525, 9001)), 2)
    attempt(lambda: s.sendall(bytes(p))); s.close()
t = connect('127.0.0.53', 53); attempt(lambda: t.sendall(b'\\xff\\xff' + r.randbytes(500))); t.close()
print(rcode(dns(query('good.example')))); print(get('good.example')[9:12])";
        assert_eq!(world.run("tool", script), "bad 1\n0\nb'200'");
        until("every one is over", || (world.net().connections() == 0).then_some(()));
    });
}

#[test]
fn web_ports_take_nothing_that_cannot_be_read() {
    world(table(vec![row("net/good", "good.example", Allow)]), |world| {
        for (port, bytes, answer) in [
            (80, "b'get / http/1.1\\r\\nhost: bad.example\\r\\n\\r\\n'", "ECONNRESET"),
            (443, "b'\\x80\\x2e\\1\\0\\2'", "ECONNRESET"),
            (2525, "b'get / http/1.1\\r\\n\\r\\n'", "220 welcome"),
        ] {
            let script = format!(
                "s = connect('good.example', {port}); s.sendall({bytes}); print(attempt(lambda: s.recv(99)))"
            );
            let got = world.run("tool", &script);
            assert!(got.contains(answer), "{port}: {got}");
        }
        let denied =
            world.events.decisions().into_iter().find(|(_, event)| event.verdict() == Deny).unwrap().1;
        assert_eq!((&*denied.rule, action(&denied).port), ("gate/first-bytes", 80));
    });
}

#[test]
fn nothing_is_left_behind() {
    world(table(vec![row("net/good", "good.example", Allow)]), |world| {
        assert!(world.run("tool", "print(get('good.example'))").contains("reached"));
        let (netns, cgroup) = (world.netns.clone(), world.scope.subjects[0].cgroup.clone());
        let attached = || {
            let shown = std::process::Command::new("bpftool")
                .arg("cgroup")
                .arg("list")
                .arg(&cgroup)
                .output()
                .unwrap();
            String::from_utf8_lossy(&shown.stdout).matches("connect4").count()
        };
        let mounted =
            || std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(netns.to_str().unwrap());
        assert_eq!((attached(), mounted()), (1, true));
        world.net.take().unwrap().remove().unwrap();
        assert_eq!((attached(), mounted(), netns.exists()), (0, false, false));
    });
}
