//! The second layer: the policy's ruleset in the namespace, beside the gate. Every other test of this crate runs under
//! the same ruleset; here is what it adds, and how it fails.

mod common;

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use common::net::{RULESET, ip};
use common::{World, table, world};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

/// What each kind of traffic does: `None` when it arrives.
#[derive(Debug, PartialEq, Eq)]
struct Traffic {
    tcp: Option<ErrorKind>,
    udp_on_loopback: Option<ErrorKind>,
    udp_elsewhere: Option<ErrorKind>,
    icmp_datagram: Option<ErrorKind>,
    by_a_device: Option<ErrorKind>,
}

fn kind(result: io::Result<()>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn udp(to: &str) -> io::Result<()> {
    let receiver = UdpSocket::bind((to, 0))?;
    receiver.set_read_timeout(Some(Duration::from_secs(2)))?;
    UdpSocket::bind(("0.0.0.0", 0))?.send_to(b"x", receiver.local_addr()?)?;
    receiver.recv(&mut [0; 1]).map(drop)
}

/// An echo request from a datagram socket, which needs no privilege, and its reply (icmp(7)).
fn icmp(to: &str) -> io::Result<()> {
    let icmp = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::empty(), SockProtocol::Icmp)?;
    let address: std::net::SocketAddrV4 = format!("{to}:0").parse().unwrap();
    sendto(icmp.as_raw_fd(), &[8, 0, 0, 0, 0, 1, 0, 1], &SockaddrIn::from(address), MsgFlags::empty())?;
    let socket = UdpSocket::from(icmp);
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.recv(&mut [0; 64]).map(drop)
}

fn by_a_device() -> io::Result<()> {
    let socket = UdpSocket::bind("5.5.5.1:0")?;
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::BindToDevice, &"out".into())?;
    socket.send_to(b"x", "5.5.5.2:53").map(drop)
}

/// Tries all in the namespace, from a thread that no cgroup program holds back: the first layer is not there.
fn try_all(netns: &Path) -> Traffic {
    let netns = File::open(netns).unwrap();
    let tried = std::thread::spawn(move || {
        setns(&netns, CloneFlags::CLONE_NEWNET).unwrap();
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
        if std::fs::metadata("/sys/class/net/out").is_err() && UdpSocket::bind("5.5.5.1:0").is_ok() {
            ip("link add out type veth peer name end");
            ip("addr add 5.5.5.1/24 dev out");
            ip("link set end up");
            ip("link set out up");
        }
        let tcp = || -> io::Result<()> {
            let listener = TcpListener::bind("0.0.0.0:0")?;
            TcpStream::connect(("198.18.0.9", listener.local_addr()?.port())).map(drop)
        };
        Traffic {
            tcp: kind(tcp()),
            udp_on_loopback: kind(udp("127.0.0.53")),
            udp_elsewhere: kind(udp("9.9.9.9")),
            icmp_datagram: kind(icmp("9.9.9.9")).or(kind(icmp("127.0.0.1"))),
            by_a_device: kind(by_a_device()),
        }
    });
    tried.join().unwrap()
}

/// A namespace of the gate's making, with nothing attached.
fn bare(world: &World, work: impl FnOnce(&Path)) {
    let path = world.folder.path().join("bare");
    world.gate.create_netns(&path).unwrap();
    work(&path);
    world.gate.remove_netns(&path).unwrap();
    assert!(!path.exists());
}

#[test]
fn the_ruleset_drops_what_the_namespace_alone_delivers() {
    world(table(vec![]), |world| {
        bare(world, |path| {
            let open = Traffic {
                tcp: None,
                udp_on_loopback: None,
                udp_elsewhere: None,
                icmp_datagram: None,
                by_a_device: None,
            };
            assert_eq!(try_all(path), open);
        });
        bare(world, |path| {
            world.gate.apply_ruleset(path, RULESET.into()).unwrap().in_force().unwrap();
            let denied = Some(ErrorKind::PermissionDenied);
            let shut = Traffic {
                tcp: None,
                udp_on_loopback: None,
                udp_elsewhere: denied,
                icmp_datagram: denied,
                by_a_device: denied,
            };
            assert_eq!(try_all(path), shut);
        });
    });
}

#[test]
fn a_ruleset_that_cannot_be_applied_is_an_error_that_names_nftables_and_what_nft_said() {
    world(table(vec![]), |world| {
        bare(world, |path| {
            let refused = |json: &[u8]| {
                world.gate.apply_ruleset(path, json.to_vec()).unwrap().in_force().unwrap_err().to_string()
            };
            let unknown =
                br#"{"nftables": [{"add": {"chain": {"family": "inet", "table": "none", "name": "x"}}}]}"#;
            for (json, words) in [
                (&unknown[..], "No such file"),
                (br#"{"nftables": []}"#, "no commands"),
                (b"{}", "no commands"),
                (b"no json", "not JSON"),
            ] {
                let why = refused(json);
                assert!(why.contains("nftables") && why.contains(words), "{why}");
            }
            assert!(refused(&vec![b' '; 65 * 1024]).contains("bytes"));
        });
        let nowhere = world.folder.path().join("nowhere");
        assert!(world.gate.apply_ruleset(&nowhere, RULESET.into()).is_err());
    });
}
