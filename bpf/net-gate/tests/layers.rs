//! Real TLS, limits, and servers that end badly.

mod common;

use std::process::{Command, Stdio};

use clawsec_core::pb;
use clawsec_core::pb::Verdict::{Allow, Deny};
use common::net::Server;
use common::servers::PUBLIC;
use common::{action, row, table, until, world};

#[test]
fn a_real_tls_handshake_goes_through() {
    let rows = table(vec![row("net/good", "good.example", Allow)]);
    world(rows, |world| {
        let file = |name: &str| world.folder.path().join(name).to_str().unwrap().to_owned();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-subj", "/CN=good.example", "-addext", "subjectAltName=DNS:good.example"])
            .args(["-keyout", &file("key"), "-out", &file("certificate")])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let server = world
            .beyond("openssl")
            .args(["s_server", "-www", "-accept", &format!("{PUBLIC}:8443"), "-quiet"])
            .args(["-key", &file("key"), "-cert", &file("certificate")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Server(server);
        let get = |url: &str| world.curl("tool", &["--cacert", &file("certificate"), url]);
        let answer = until("the server answers", || {
            let answer = get("https://good.example:8443/");
            answer.status.success().then(|| String::from_utf8_lossy(&answer.stdout).into_owned())
        });
        assert!(answer.contains("Cipher"), "{answer}");
        // Another name in the hello, to the address that was allowed.
        let fronted = world.curl(
            "tool",
            &["-k", "--connect-to", "bad.example:8443:good.example:8443", "https://bad.example:8443/"],
        );
        let error = String::from_utf8_lossy(&fronted.stderr);
        assert!(error.contains("access denied"), "{error}");
        drop(server);
    });
}

#[test]
fn connections_beyond_the_limit_are_reset_and_told_once() {
    world(
        table(vec![row("net/good", "good.example", Allow), row("net/bad", "other.example", Deny)]),
        |world| {
            let limit = world.net().connection_limit();
            assert!((16..=4096).contains(&limit));
            let script = "
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
address = socket.gethostbyname('good.example'); all = []; e = select.epoll()
for i in range(MOST + 50):
    s = socket.socket(); s.setblocking(False); s.connect_ex((address, 2525)); all.append(s)
    if i % 100 == 99: time.sleep(0.02)
time.sleep(1)
def state(s):
    try: return 'closed' if s.recv(1) == b'' else 'open'
    except BlockingIOError: return 'open'
    except OSError: return 'reset'
states = [state(s) for s in all]
print(states.count('open'), states.count('reset'))";
            let script = script.replace("MOST", &limit.to_string());
            assert_eq!(world.run("tool", &script), format!("{limit} 50"));
            let full: Vec<_> = world
                .events
                .decisions()
                .into_iter()
                .filter(|(_, event)| event.rule == "gate/connection-limit")
                .collect();
            assert!((1..=5).contains(&full.len()), "{}", full.len());
            until("all are over", || (world.net().connections() == 0).then_some(()));
            assert!(
                world.run("tool", "print(get('good.example'))").contains("reached"),
                "and it works again"
            );
        },
    );
}

#[test]
fn an_answer_before_a_reset_is_still_delivered() {
    world(table(vec![row("net/good", "good.example", Allow)]), |world| {
        let server = world
            .beyond("/usr/bin/python3")
            .args(["-IS", "-c"])
            .arg(format!(
                "import socket, struct
l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind(('{PUBLIC}', 7000)); l.listen()
while True:
    s, p = l.accept(); s.recv(10); s.sendall(b'y' * 300000)
    import time; time.sleep(0.2)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); s.close()"
            ))
            .spawn()
            .unwrap();
        let server = Server(server);
        let script = "
def work():
    s = connect('good.example', 7000); s.sendall(b'x' * 10); time.sleep(0.5); n = 0
    try:
        while True:
            d = s.recv(65536)
            if not d: return n, 'end'
            n += len(d)
    except ConnectionResetError: return n, 'reset'
r = attempt(work)
while r == 'ECONNRESET': r = attempt(work)
print(*r)";
        let lines = until("the server answers", || {
            let line = world.run("tool", script);
            (!line.starts_with("0 ")).then_some(line)
        });
        assert_eq!(lines, "300000 reset");
        drop(server);
    });
}

#[test]
fn a_flood_of_denials_is_told_in_a_bounded_number_of_events() {
    world(table(vec![row("net/good", "good.example", Allow)]), |world| {
        let script = "
for i in range(2000): dns(query('n%d.bad.example' % i))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(2000): attempt(lambda: u.sendto(b'x', ('9.9.9.9', 1000 + i)))
print('done')";
        let started = std::time::Instant::now();
        assert_eq!(world.run("tool", script), "done");
        let seconds = usize::try_from(started.elapsed().as_secs()).unwrap() + 2;
        let events = world.events.decisions();
        assert!(events.len() <= seconds * 64 * 2, "{} events", events.len());
        assert!(events.iter().any(|(_, event)| action(event).protocol() == pb::NetworkProtocol::Dns));
        world.net.take().unwrap().remove().unwrap();
        let counted: u64 = world.events.lost.lock().unwrap().iter().map(|(_, count)| count).sum();
        let told: u64 = world.events.decisions().iter().map(|(_, event)| held_back(&event.message)).sum();
        let all = u64::try_from(world.events.decisions().len()).unwrap() + counted + told;
        assert_eq!(all, 4000, "each is told or counted");
    });
}

/// The number in "(n more since the last report)".
fn held_back(message: &str) -> u64 {
    let Some((_, rest)) = message.split_once('(') else { return 0 };
    rest.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}
