//! The socket, the streams and the life of the loader's process. Run as root.

mod common;

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use clawsec_proto as pb;
use common::{Loader, command, connect, run_to_end};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

fn temp_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("clawsec-test-").tempdir_in("/run").unwrap()
}

#[tokio::test]
async fn hello_names_versions_and_what_this_host_can_enforce() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let hello = client.hello(pb::HelloRequest { supervisor_version: "test\u{1b}[2J".into() }).await;
    let hello = hello.unwrap().into_inner();
    assert_eq!(hello.loader_version, env!("CARGO_PKG_VERSION"));
    assert_eq!(hello.loader_boot_id.len(), 36);
    assert!(!hello.kernel_release.is_empty());
    let present = |name: &str| {
        hello.capabilities.iter().any(|it| it.name == name && it.state() == pb::CapabilityState::Present)
    };
    for name in ["bpf.exec_verify", "seccomp.notify", "ptrace.hold", "netns.sk_lookup", "landlock", "runc"] {
        assert!(present(name), "{name}: {:#?}", hello.capabilities);
    }
    let log = loader.logs("said hello");
    assert!(
        log.contains("[2J") && !log.contains('\u{1b}'),
        "what a client says is escaped in the log: {log:?}"
    );
}

#[tokio::test]
async fn a_stopped_loader_exits_0_and_removes_its_socket() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let dir = temp_dir();
        let mut loader = Loader::start_in(dir.path(), &[]);
        let socket = dir.path().join("loader.sock");
        assert!(socket.exists());
        // An open stream must not keep it.
        let mut client = loader.client().await;
        let (_open, messages) = mpsc::channel(1);
        let _stream = client.decide(ReceiverStream::new(messages)).await.unwrap();
        assert_eq!(loader.signal_and_wait(signal).code(), Some(0), "signal {signal}");
        assert!(!socket.exists());
    }
}

#[tokio::test]
async fn the_socket_is_for_root_and_its_group_alone() {
    let dir = temp_dir();
    let loader = Loader::start_in(dir.path(), &["--socket-group", "65533"]);
    let meta = std::fs::metadata(dir.path().join("loader.sock")).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!((meta.mode() & 0o777, meta.uid(), meta.gid()), (0o660, 0, 65533));
    // Were the file's mode loosened, the loader itself still closes on strangers.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let socket = dir.path().join("loader.sock");
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    let peer = |groups: &[&str]| {
        // The HTTP/2 preface; a server that talks to us answers with its settings at once.
        let script = "import socket,sys\n\
            s=socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(sys.argv[1])\n\
            try:\n s.sendall(b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n'+bytes([0,0,0,4,0,0,0,0,0]))\n\
            except BrokenPipeError: pass\n\
            try: n=len(s.recv(9))\n\
            except ConnectionResetError: n=0\n\
            print('talks' if n else 'closed')";
        let output = Command::new("/usr/bin/setpriv")
            .args(["--reuid", "65534", "--regid", "65534"])
            .args(groups)
            .args(["/usr/bin/python3", "-c", script])
            .arg(&socket)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(peer(&["--clear-groups"]), "closed");
    assert_eq!(peer(&["--groups", "65533"]), "talks");
    loader.logs("a connection was closed: only root");
}

#[tokio::test]
async fn a_second_loader_refuses_to_start_and_the_first_goes_on() {
    let loader = Loader::start();
    let (code, said) = run_to_end(&mut command(loader.dir()));
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains("another loader serves"), "{said}");
    loader.client().await.list_sandboxes(pb::ListSandboxesRequest {}).await.unwrap();
}

#[tokio::test]
async fn the_socket_of_a_killed_loader_is_replaced() {
    let dir = temp_dir();
    let mut dead = Loader::start_in(dir.path(), &[]);
    dead.signal_and_wait(libc::SIGKILL);
    assert!(dir.path().join("loader.sock").exists());
    let loader = Loader::start_in(dir.path(), &[]);
    loader.client().await.list_sandboxes(pb::ListSandboxesRequest {}).await.unwrap();
}

#[tokio::test]
async fn a_listener_that_answers_is_not_replaced() {
    let dir = temp_dir();
    let _other = UnixListener::bind(dir.path().join("loader.sock")).unwrap();
    let (code, said) = run_to_end(&mut command(dir.path()));
    assert_eq!(code, Some(75), "{said}");
}

#[test]
fn who_is_not_root_gets_a_sentence_and_77() {
    let dir = temp_dir();
    // The build folder may be closed to others: hand the program over as a descriptor.
    let program = std::fs::File::open(env!("CARGO_BIN_EXE_clawsec-loader")).unwrap();
    let copy = dir.path().join("loader");
    std::io::copy(&mut &program, &mut std::fs::File::create(&copy).unwrap()).unwrap();
    for path in [dir.path(), copy.as_path()] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let output = Command::new("/usr/bin/setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&copy)
        .args(["--runtime-dir", "/run/clawsec-test-nobody", "--shim", "/bin/true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(77));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("must be started as root"), "{said}");
}

#[test]
fn a_shim_that_is_missing_is_a_sentence_and_69() {
    let dir = temp_dir();
    let mut command = Command::new(env!("CARGO_BIN_EXE_clawsec-loader"));
    command.arg("--runtime-dir").arg(dir.path()).args(["--shim", "/nowhere/clawsec-init"]);
    let (code, said) = run_to_end(command.stderr(Stdio::piped()));
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("/nowhere/clawsec-init"), "{said}");
}

#[tokio::test]
async fn a_new_stream_of_decisions_or_events_ends_the_one_before() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let (_a, requests) = mpsc::channel(1);
    let mut first = client.decide(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let (_b, requests) = mpsc::channel(1);
    let _second = client.decide(ReceiverStream::new(requests)).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), first.message()).await.unwrap();
    assert_eq!(ended.unwrap_err().code(), Code::Aborted);

    let (_a, acks) = mpsc::channel(1);
    let mut first = client.events(ReceiverStream::new(acks)).await.unwrap().into_inner();
    let (_b, acks) = mpsc::channel(1);
    let _second = client.events(ReceiverStream::new(acks)).await.unwrap();
    let ended = loop {
        match tokio::time::timeout(Duration::from_secs(5), first.message()).await.unwrap() {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert_eq!(ended.unwrap_err().code(), Code::Aborted);
}

#[tokio::test]
async fn calls_about_a_sandbox_that_does_not_exist_say_so() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let name = || "ghost".to_owned();
    let missing = |status: tonic::Status| {
        assert_eq!(status.code(), Code::NotFound, "{status}");
        assert!(status.message().contains("ghost"), "{status}");
    };
    missing(client.start_sandbox(pb::StartSandboxRequest { name: name() }).await.unwrap_err());
    missing(client.wait_sandbox(pb::WaitSandboxRequest { name: name() }).await.unwrap_err());
    missing(client.revoke_secrets(pb::RevokeSecretsRequest { name: name() }).await.unwrap_err());
    let tables = pb::PolicyTables {
        epoch: 1,
        policy_hash: "0".repeat(64),
        network: Some(pb::NetworkTable::default()),
        ..Default::default()
    };
    let apply = pb::ApplyPolicyRequest { name: name(), tables: Some(tables) };
    missing(client.apply_policy(apply).await.unwrap_err());
    let kill = pb::KillSandboxRequest { name: name(), reason: "test".into() };
    missing(client.kill_sandbox(kill).await.unwrap_err());
    let empty = pb::CreateSandboxRequest { name: "../x".into(), ..Default::default() };
    assert_eq!(client.create_sandbox(empty).await.unwrap_err().code(), Code::InvalidArgument);
    assert!(connect(std::path::Path::new("/nowhere")).await.is_err());
}

#[test]
fn one_mechanism_can_be_tried_without_a_loader() {
    let probe = |name: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_clawsec-loader"));
        let output = command.args(["--probe-only", name]).env_remove("CLAWSEC_SHIM").output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let (code, said) = probe("nftables");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("was refused after a ruleset"), "{said}");
    let enabled =
        std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|on| on.trim() == "Y");
    let (code, said) = probe("apparmor");
    if enabled {
        assert_eq!(code, Some(0), "{said}");
    } else {
        assert_eq!(code, Some(69), "{said}");
        assert!(said.contains("apparmor is missing: the kernel has no AppArmor"), "{said}");
    }
    assert_eq!(probe("none").0, Some(2));
}
