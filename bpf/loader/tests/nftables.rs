//! The policy's nftables ruleset in real sandboxes. Run as root, with runc and nft.

mod common;

use std::io::Read;
use std::path::Path;

use clawsec_proto as pb;
use common::Loader;
use common::supervisor::{Supervisor, attach, request, run};

/// What a policy is compiled into: only what leads to the gate, and what stays on loopback.
const RULESET: &str = include_str!("../../net-gate/tests/common/ruleset.json");

fn under(ruleset: &str, mut request: pb::CreateSandboxRequest) -> pb::CreateSandboxRequest {
    request.nftables = ruleset.into();
    request
}

/// Names in the runtime folder that only a sandbox can have made.
fn left(dir: &Path) -> Vec<String> {
    let folders = ["sandboxes", "netns", "runc"].map(|folder| std::fs::read_dir(dir.join(folder)).unwrap());
    folders.into_iter().flatten().flatten().map(|entry| entry.path().display().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_out_names_and_published_ports_work_under_the_ruleset() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let _supervisor = Supervisor::allowing(&mut client).await;
    let script = "import socket, struct\n\
        o=socket.create_connection(('192.0.2.1', 80), 5)\n\
        o.sendall(b'GET / HTTP/1.1\\r\\nHost: 192.0.2.1\\r\\n\\r\\n'); print('out:', o.recv(999)[:12])\n\
        d=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); d.settimeout(5)\n\
        d.sendto(struct.pack('>HHHHHH', 7, 256, 1, 0, 0, 0) + b'\\x01a\\x04test\\0\\0\\x01\\0\\x01', ('127.0.0.53', 53))\n\
        print('dns:', d.recv(512)[:2])\n\
        s=socket.create_server(('127.0.0.1', 8080)); print('ready', flush=True)\n\
        c,_=s.accept(); c.sendall(b'hello from inside'); c.close()";
    let mut request = under(RULESET, request("ruled", &["/usr/bin/python3", "-c", script]));
    request.publish =
        vec![pb::PublishedPort { host_ip: "127.0.0.1".into(), host_port: 0, sandbox_port: 8080 }];
    let created = client.create_sandbox(request).await.unwrap().into_inner().sandbox.unwrap();
    let port = u16::try_from(created.publish[0].host_port).unwrap();
    let ruled = loader.dir().join("netns/ruled");
    let ruleset = std::process::Command::new("nsenter")
        .arg(format!("--net={}", ruled.display()))
        .args(["nft", "list", "ruleset"])
        .output()
        .unwrap();
    let ruleset = String::from_utf8_lossy(&ruleset.stdout).into_owned();
    assert!(ruleset.contains("policy drop"), "in force before anything runs: {ruleset}");
    let attached = attach(&mut client, "ruled").await;
    client.start_sandbox(pb::StartSandboxRequest { name: "ruled".into() }).await.unwrap();
    attached.says("ready").await;
    let said = tokio::task::spawn_blocking(move || {
        let mut said = String::new();
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap().read_to_string(&mut said).unwrap();
        said
    });
    assert_eq!(said.await.unwrap(), "hello from inside");
    let ran = attached.end().await;
    assert_eq!(ran.stdout, "out: b'HTTP/1.1 403'\ndns: b'\\x00\\x07'\nready\n", "{}", ran.stderr);
    assert!(left(loader.dir()).is_empty(), "{:?}", left(loader.dir()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_whose_ruleset_is_not_in_force_is_not_made() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let _supervisor = Supervisor::allowing(&mut client).await;
    let unknown = r#"{"nftables": [{"add": {"chain": {"family": "inet", "table": "none", "name": "x"}}}]}"#;
    for (ruleset, words) in [(unknown, "No such file"), ("{}", "no commands"), ("no json", "JSON")] {
        let refused =
            client.create_sandbox(under(ruleset, request("bad", &["/bin/true"]))).await.unwrap_err();
        let said = refused.message();
        assert!(said.contains("nftables") && said.contains(words), "{said}");
        assert!(left(loader.dir()).is_empty(), "{:?}", left(loader.dir()));
    }
    let ran = run(&mut client, under(RULESET, request("bad", &["/usr/bin/echo", "ran"]))).await;
    assert_eq!(ran.stdout, "ran\n", "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_ruleset_outlives_a_killed_loader_and_its_successor() {
    let dir = tempfile::Builder::new().prefix("clawsec-test-").tempdir_in("/run").unwrap();
    let mut loader = Loader::start_in(dir.path(), &[]);
    let mut client = loader.client().await;
    client.create_sandbox(under(RULESET, request("orphan", &["/bin/true"]))).await.unwrap();
    assert!(dir.path().join("netns/orphan").exists());
    loader.signal_and_wait(libc::SIGKILL);
    let next = Loader::start_in(dir.path(), &[]);
    assert!(next.log().contains("the network namespace orphan was removed"), "{}", next.log());
    assert!(left(dir.path()).is_empty(), "{:?}", left(dir.path()));
}
