//! Real sandboxes under the real loader, driven as a supervisor drives it. Run as root, with runc.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use clawsec_proto as pb;
use common::supervisor::{
    Supervisor, answer, attach, attach_when_free, exec_action, exec_of, hold, request, run, tables,
};
use common::{Client, Loader};
use pb::loader_message::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

/// First 8 hex digits of the SHA-256 of the runtime directory, as in `Config::instance`.
fn instance(dir: &Path) -> String {
    clawsec_loader::process::instance(dir)
}

/// Nothing of the loader on `dir` is left in the kernel or below `dir`.
fn assert_nothing_left(dir: &Path) {
    for folder in ["sandboxes", "netns", "runc"] {
        let left: Vec<_> = std::fs::read_dir(dir.join(folder)).unwrap().flatten().collect();
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(dir.to_str().unwrap()), "mounts are left");
    let folder = format!("clawsec-{}", instance(dir));
    for line in mounts.lines().filter(|line| line.contains(" - cgroup")) {
        let hierarchy = line.split(' ').nth(4).unwrap();
        assert!(!Path::new(hierarchy).join(&folder).exists(), "a cgroup is left in {hierarchy}");
    }
}

fn assert_no_pins(dir: &Path) {
    let pins = Path::new("/sys/fs/bpf").join(format!("clawsec-{}", instance(dir)));
    assert!(!pins.exists(), "pins are left: {pins:?}");
}

async fn start(client: &mut Client, name: &str) {
    client.start_sandbox(pb::StartSandboxRequest { name: name.into() }).await.unwrap();
}

async fn kill(client: &mut Client, name: &str) -> pb::KillReport {
    let request = pb::KillSandboxRequest { name: name.into(), reason: "the test".into() };
    client.kill_sandbox(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_command_runs_and_a_denied_one_is_told_why() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let supervisor = Supervisor::attach(&mut client, |question| {
        let denied = exec_action(question).is_some_and(|exec| exec.executable == "/usr/bin/env");
        Some(answer(if denied { pb::Verdict::Deny } else { pb::Verdict::Allow }))
    })
    .await;
    let ran = run(&mut client, request("echo", &["/usr/bin/echo", "hi"])).await;
    assert_eq!((ran.stdout.as_str(), ran.code), ("hi\n", Some(0)), "{}", ran.stderr);
    assert_eq!(supervisor.asked_execs(), ["/usr/bin/echo"]);

    let ran = run(&mut client, request("deny", &["/usr/bin/sh", "-c", "/usr/bin/env; echo code $?"])).await;
    assert_eq!(ran.stdout, "code 126\n", "{}", ran.stderr);
    assert!(ran.stderr.contains("the test says so"), "{}", ran.stderr);
    assert!(ran.stderr.contains("Permission denied"), "{}", ran.stderr);
    assert_nothing_left(loader.dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_supervisor_nothing_runs() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let begin = Instant::now();
    let ran = run(&mut client, request("alone", &["/usr/bin/echo", "hi"])).await;
    assert_eq!((ran.stdout.as_str(), ran.code), ("", Some(126)));
    assert!(ran.stderr.contains("the supervisor did not answer within 2000 ms"), "{}", ran.stderr);
    assert!(begin.elapsed() > Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_command_waits_outlives_the_supervisor_and_runs_when_allowed() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let decide = |question: &pb::Question| {
        let held = exec_action(question).is_some_and(|exec| exec.executable == "/usr/bin/env");
        match (held, question.hold_id.is_empty()) {
            (true, true) => Some(hold("h-1")),
            (true, false) => None,
            (false, _) => Some(answer(pb::Verdict::Allow)),
        }
    };
    let first = Supervisor::attach(&mut client, decide).await;
    let script = "echo before; /usr/bin/env echo held; echo after $?";
    client.create_sandbox(request("held", &["/usr/bin/sh", "-c", script])).await.unwrap();
    let attached = attach(&mut client, "held").await;
    start(&mut client, "held").await;
    let held = first
        .hears(|message| match message {
            Message::Held(held) => Some(held.clone()),
            _ => None,
        })
        .await;
    let facts = held.exec.unwrap();
    assert_eq!(
        (facts.executable.as_str(), facts.argv.as_slice()),
        ("/usr/bin/env", &["/usr/bin/env".to_owned(), "echo".into(), "held".into()][..])
    );
    drop(first);
    tokio::time::sleep(Duration::from_millis(300)).await;
    attached.says("before").await;
    assert!(!attached.stdout.lock().unwrap().contains("after"));

    let second = Supervisor::attach(&mut client, decide).await;
    let question = second.hears(|message| exec_of(message).filter(|(question, _)| question.resent)).await.0;
    assert_eq!(question.hold_id, "h-1");
    let decision =
        pb::Decision { question_id: question.id, epoch: question.epoch, ..answer(pb::Verdict::Allow) };
    second.decide(decision).await;
    let ran = attached.end().await;
    assert_eq!(ran.stdout, "before\nheld\nafter 0\n", "{}", ran.stderr);
    let settled = second
        .hears(|message| match message {
            Message::Settled(settled) => Some(settled.clone()),
            _ => None,
        })
        .await;
    assert_eq!((settled.verdict(), settled.hold_id.as_str()), (pb::Verdict::Allow, "h-1"));
    assert_nothing_left(loader.dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_command_that_is_denied_dies_before_its_first_instruction() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let supervisor = Supervisor::attach(&mut client, |question| {
        let held = exec_action(question).is_some_and(|exec| exec.executable == "/usr/bin/env");
        Some(if held { hold("h-2") } else { answer(pb::Verdict::Allow) })
    })
    .await;
    let script = "/usr/bin/env echo held; echo after $?";
    client.create_sandbox(request("held", &["/usr/bin/sh", "-c", script])).await.unwrap();
    let attached = attach(&mut client, "held").await;
    start(&mut client, "held").await;
    let held = supervisor
        .hears(|message| match message {
            Message::Held(held) => Some(held.clone()),
            _ => None,
        })
        .await;
    let decision = pb::Decision { question_id: held.question_id, epoch: 1, ..answer(pb::Verdict::Deny) };
    supervisor.decide(decision).await;
    let ran = attached.end().await;
    assert_eq!(ran.stdout, "after 137\n", "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_leaves_nothing_and_the_name_is_free_again() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let _supervisor = Supervisor::allowing(&mut client).await;
    let script = "sleep 1000 & sleep 1000 & echo ready; wait";
    client.create_sandbox(request("box", &["/usr/bin/sh", "-c", script])).await.unwrap();
    let attached = attach(&mut client, "box").await;
    start(&mut client, "box").await;
    attached.says("ready").await;
    let second = client.create_sandbox(request("box", &["/usr/bin/true"])).await.unwrap_err();
    assert_eq!(second.code(), Code::AlreadyExists, "{second}");

    let report = kill(&mut client, "").await;
    let report = &report.sandboxes[0];
    assert!(report.processes >= 4, "{report:?}");
    assert_eq!(report.survivors, 0);
    assert!(
        report.network_cut_us <= report.secrets_empty_us && report.secrets_empty_us <= report.signalled_us
    );
    assert!(report.signalled_us <= report.gone_us && report.gone_us > 0);
    assert_eq!(attached.end().await.code, Some(137));
    let info = client.wait_sandbox(pb::WaitSandboxRequest { name: "box".into() }).await.unwrap().into_inner();
    assert_eq!(info.sandbox.unwrap().state(), pb::SandboxState::Killed);
    assert_nothing_left(loader.dir());
    let again = kill(&mut client, "box").await;
    assert_eq!(again.sandboxes[0].processes, 0);

    let ran = run(&mut client, request("box", &["/usr/bin/echo", "again"])).await;
    assert_eq!(ran.stdout, "again\n", "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_arrives_in_order_and_is_resent_until_acknowledged() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let _supervisor = Supervisor::allowing(&mut client).await;
    run(&mut client, request("told", &["/usr/bin/sh", "-c", "/usr/bin/true; exit 3"])).await;

    let mut events = Vec::new();
    let (acks, requests) = mpsc::channel(8);
    let mut stream = client.events(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let ended = |event: &pb::Event| matches!(&event.kind, Some(pb::event::Kind::SandboxEvent(it)) if it.state() == pb::SandboxState::Exited);
    while !events.iter().any(ended) {
        let batch = tokio::time::timeout(Duration::from_secs(10), stream.message()).await.unwrap();
        events.extend(batch.unwrap().unwrap().events);
    }
    let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    let expected: Vec<u64> = (1..=u64::try_from(sequences.len()).unwrap()).collect();
    assert_eq!(sequences, expected);
    let of_box = |event: &&pb::Event| event.sandbox == "told";
    assert!(events.iter().filter(of_box).all(|event| event.policy_hash == format!("{:064x}", 1)));
    let decided: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.kind {
            Some(pb::event::Kind::Exec(exec)) => exec.decision.as_ref(),
            _ => None,
        })
        .filter_map(|decision| match &decision.action {
            Some(pb::decision_event::Action::Exec(exec)) => {
                Some((exec.executable.as_str(), decision.verdict()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(decided.len(), 2, "{decided:?}");
    assert!(decided.contains(&("/usr/bin/true", pb::Verdict::Allow)));
    let verified = events
        .iter()
        .filter(|event| matches!(&event.kind, Some(pb::event::Kind::Exec(exec)) if exec.verified));
    // The shim, the shell, and true.
    assert_eq!(verified.count(), 3);
    let exit = events.iter().find(|event| ended(event)).and_then(|event| match &event.kind {
        Some(pb::event::Kind::SandboxEvent(event)) => event.exit,
        _ => None,
    });
    assert_eq!(exit.unwrap().code, 3);

    acks.send(pb::EventAck { sequence: 2 }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (_acks, requests) = mpsc::channel(8);
    let mut stream = client.events(ReceiverStream::new(requests)).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().events[0].sequence, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_needs_a_larger_epoch_and_voids_cached_verdicts() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let supervisor = Supervisor::attach(&mut client, |question| {
        let env = exec_action(question).is_some_and(|exec| exec.executable == "/usr/bin/env");
        let verdict = if env && question.epoch >= 2 { pb::Verdict::Deny } else { pb::Verdict::Allow };
        Some(pb::Decision { cache_scope: pb::CacheScope::File.into(), ..answer(verdict) })
    })
    .await;
    let script = "/usr/bin/env echo one; /usr/bin/env echo two; echo ready; read go; /usr/bin/env echo three; echo done";
    client.create_sandbox(request("box", &["/usr/bin/sh", "-c", script])).await.unwrap();
    let attached = attach(&mut client, "box").await;
    start(&mut client, "box").await;
    attached.says("ready").await;
    let asked =
        |supervisor: &Supervisor| supervisor.asked_execs().iter().filter(|it| *it == "/usr/bin/env").count();
    assert_eq!(asked(&supervisor), 1, "the second time was answered from the cache");

    let apply =
        |epoch| pb::ApplyPolicyRequest { name: "box".into(), tables: Some(tables(epoch, pb::Verdict::Deny)) };
    let stale = client.apply_policy(apply(1)).await.unwrap_err();
    assert_eq!(stale.code(), Code::FailedPrecondition, "{stale}");
    assert_eq!(client.apply_policy(apply(2)).await.unwrap().into_inner().epoch, 2);
    let info = client.list_sandboxes(pb::ListSandboxesRequest {}).await.unwrap().into_inner().sandboxes;
    assert_eq!((info[0].epoch, info[0].policy_hash.clone()), (2, format!("{:064x}", 2)));

    let input = pb::AttachInput { stdin: b"go\n".to_vec(), ..Default::default() };
    attached.input.send(input).await.unwrap();
    let ran = attached.end().await;
    assert_eq!(ran.stdout, "one\ntwo\nready\ndone\n", "{}", ran.stderr);
    assert_eq!(asked(&supervisor), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_behind_input_that_nobody_reads_comes_through_and_the_input_stays_whole() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let _supervisor = Supervisor::allowing(&mut client).await;
    // The shell reads nothing until the signal has come; then all that was sent is there.
    let script =
        "trap 'echo told; head -c 200000 | wc -c; exit 0' USR1; echo ready; while :; do sleep 0.1; done";
    client.create_sandbox(request("deaf", &["/usr/bin/sh", "-c", script])).await.unwrap();
    let attached = attach(&mut client, "deaf").await;
    start(&mut client, "deaf").await;
    attached.says("ready").await;
    // More than a pipe takes, and less than the queue.
    for _ in 0..20 {
        let input = pb::AttachInput { stdin: vec![b'x'; 10_000], ..Default::default() };
        attached.input.send(input).await.unwrap();
    }
    let signal = pb::AttachInput { signal: libc::SIGUSR1, ..Default::default() };
    attached.input.send(signal).await.unwrap();
    let ran = attached.end().await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "ready\ntold\n200000\n"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_a_silent_command_makes_room_for_the_next_at_once() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let _supervisor = Supervisor::allowing(&mut client).await;
    client
        .create_sandbox(request("quiet", &["/usr/bin/sh", "-c", "echo ready; read line; echo $line"]))
        .await
        .unwrap();
    let first = attach(&mut client, "quiet").await;
    start(&mut client, "quiet").await;
    first.says("ready").await;
    let (input, inputs) = mpsc::channel(1);
    input.send(pb::AttachInput { name: "quiet".into(), ..Default::default() }).await.unwrap();
    let refused = client.attach(ReceiverStream::new(inputs)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    first.leave().await;
    let second = attach_when_free(&mut client, "quiet").await;
    let line = pb::AttachInput { stdin: b"again\n".to_vec(), ..Default::default() };
    second.input.send(line).await.unwrap();
    assert_eq!(second.end().await.stdout, "again\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_arrive_rotate_and_are_emptied() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let _supervisor = Supervisor::allowing(&mut client).await;
    let script = "cd /run/secrets/clawsec; cat key; read go; cat key; read go; cat key; echo end";
    let secret = |value: &str| pb::Secret { name: "key".into(), value: value.into() };
    let mut request = request("vault", &["/usr/bin/sh", "-c", script]);
    request.secrets = vec![secret("first\n")];
    request.secrets_mount =
        Some(pb::SecretsMount { path: "/run/secrets/clawsec".into(), uid: 1000, gid: 1000, may_swap: false });
    client.create_sandbox(request).await.unwrap();
    let attached = attach(&mut client, "vault").await;
    start(&mut client, "vault").await;
    attached.says("first\n").await;
    let put = pb::PutSecretsRequest { name: "vault".into(), secrets: vec![secret("second\n")] };
    client.put_secrets(put).await.unwrap();
    let go = || pb::AttachInput { stdin: b"go\n".to_vec(), ..Default::default() };
    attached.input.send(go()).await.unwrap();
    attached.says("second\n").await;
    let revoke = pb::RevokeSecretsRequest { name: "vault".into() };
    assert_eq!(client.revoke_secrets(revoke).await.unwrap().into_inner().emptied, 1);
    attached.input.send(go()).await.unwrap();
    assert_eq!(attached.end().await.stdout, "first\nsecond\nend\n");
    assert!(!loader.log().contains("first") && !loader.log().contains("second"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_refused_leaves_nothing() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let mut privileged = request("root", &["/usr/bin/id"]);
    let config = String::from_utf8(privileged.oci_config).unwrap();
    privileged.oci_config = config.replace("\"uid\":1000", "\"uid\":0").into_bytes();
    let refused = client.create_sandbox(privileged).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let mut mount = request("mount", &["/usr/bin/id"]);
    mount.oci_config = String::from_utf8(mount.oci_config)
        .unwrap()
        .replace("\"source\":\"/usr\"", "\"source\":\"/nowhere\"")
        .into_bytes();
    client.create_sandbox(mount).await.unwrap_err();
    assert_nothing_left(loader.dir());
    assert!(
        client.list_sandboxes(pb::ListSandboxesRequest {}).await.unwrap().into_inner().sandboxes.is_empty()
    );
    let _supervisor = Supervisor::allowing(&mut client).await;
    assert_eq!(run(&mut client, request("mount", &["/usr/bin/echo", "ok"])).await.stdout, "ok\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_kills_every_sandbox_and_leaves_nothing() {
    let dir = tempfile::Builder::new().prefix("clawsec-test-").tempdir_in("/run").unwrap();
    let mut loader = Loader::start_in(dir.path(), &[]);
    let mut client = loader.client().await;
    let _supervisor = Supervisor::allowing(&mut client).await;
    let mut pids = Vec::new();
    for name in ["one", "two"] {
        client.create_sandbox(request(name, &["/usr/bin/sleep", "1000"])).await.unwrap();
        let started = client.start_sandbox(pb::StartSandboxRequest { name: name.into() }).await.unwrap();
        pids.push(started.into_inner().sandbox.unwrap().init_pid);
    }
    client.create_sandbox(request("never-started", &["/usr/bin/true"])).await.unwrap();
    assert_eq!(loader.signal_and_wait(libc::SIGTERM).code(), Some(0), "{}", loader.log());
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
    assert_nothing_left(dir.path());
    assert_no_pins(dir.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_loader_takes_its_sandboxes_with_it_and_the_next_one_cleans_up() {
    let dir = tempfile::Builder::new().prefix("clawsec-test-").tempdir_in("/run").unwrap();
    let mut dead = Loader::start_in(dir.path(), &[]);
    let mut client = dead.client().await;
    let supervisor = Supervisor::allowing(&mut client).await;
    client.create_sandbox(request("box", &["/usr/bin/sh", "-c", "sleep 1000 & sleep 1000"])).await.unwrap();
    let started = client.start_sandbox(pb::StartSandboxRequest { name: "box".into() }).await.unwrap();
    let init = started.into_inner().sandbox.unwrap().init_pid;
    dead.signal_and_wait(libc::SIGKILL);
    drop(supervisor);
    let end = Instant::now() + Duration::from_secs(5);
    let gone =
        || std::fs::read_to_string(format!("/proc/{init}/stat")).map_or(true, |stat| stat.contains(") Z "));
    while !gone() {
        assert!(Instant::now() < end, "the sandbox lives on without its loader");
        std::thread::sleep(Duration::from_millis(5));
    }

    let loader = Loader::start_in(dir.path(), &[]);
    assert!(loader.log().contains("an earlier loader left something"), "{}", loader.log());
    assert_nothing_left(dir.path());
    let mut client = loader.client().await;
    let _supervisor = Supervisor::allowing(&mut client).await;
    assert_eq!(run(&mut client, request("box", &["/usr/bin/echo", "ok"])).await.stdout, "ok\n");
    drop(loader);
    assert_no_pins(dir.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_of_a_guarded_file_is_asked_about() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["yes", "no"] {
        std::fs::write(place.path().join(name), format!("content of {name}\n")).unwrap();
    }
    let loader = Loader::start();
    let mut client = loader.client().await;
    let _supervisor = Supervisor::attach(&mut client, |question| {
        let denied =
            matches!(&question.action, Some(pb::question::Action::File(file)) if file.path == "/guarded/no");
        Some(answer(if denied { pb::Verdict::Deny } else { pb::Verdict::Allow }))
    })
    .await;
    let mut request =
        request("guard", &["/usr/bin/sh", "-c", "cat /guarded/yes; cat /guarded/no; echo code $?"]);
    let mut oci: serde_json::Value = serde_json::from_slice(&request.oci_config).unwrap();
    oci["mounts"].as_array_mut().unwrap().push(serde_json::json!({
        "destination": "/guarded", "type": "bind", "source": place.path(), "options": ["rbind", "ro", "nosuid", "nodev"],
    }));
    request.oci_config = oci.to_string().into_bytes();
    request.rootfs.push(pb::RootfsEntry {
        path: "/guarded".into(),
        kind: Some(pb::rootfs_entry::Kind::Directory(pb::rootfs_entry::Directory {})),
    });
    request.tables.as_mut().unwrap().file_guards =
        vec![pb::FileGuard { path: "/guarded".into(), open: true, names: false }];
    let ran = run(&mut client, request).await;
    assert_eq!(ran.stdout, "content of yes\ncode 1\n", "{}", ran.stderr);
    assert_nothing_left(loader.dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_port_reaches_the_sandbox_and_the_way_out_is_closed() {
    use std::io::Read;
    let loader = Loader::start();
    let mut client = loader.client().await;
    let _supervisor = Supervisor::allowing(&mut client).await;
    let script = "import socket\n\
        o=socket.create_connection(('192.0.2.1', 80), 5)\n\
        o.sendall(b'GET / HTTP/1.1\\r\\nHost: 192.0.2.1\\r\\n\\r\\n'); print('out:', o.recv(999))\n\
        s=socket.create_server(('127.0.0.1', 8080)); print('ready', flush=True)\n\
        c,_=s.accept(); c.sendall(b'hello from inside'); c.close()";
    let mut request = request("web", &["/usr/bin/python3", "-c", script]);
    request.publish =
        vec![pb::PublishedPort { host_ip: "127.0.0.1".into(), host_port: 0, sandbox_port: 8080 }];
    let created = client.create_sandbox(request).await.unwrap().into_inner().sandbox.unwrap();
    let port = u16::try_from(created.publish[0].host_port).unwrap();
    assert_ne!(port, 0);
    let attached = attach(&mut client, "web").await;
    start(&mut client, "web").await;
    attached.says("ready").await;
    let said = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    });
    assert_eq!(said.await.unwrap(), "hello from inside");
    let ran = attached.end().await;
    assert!(ran.stdout.starts_with("out: b'HTTP/1.1 403"), "{ran:?}");
    assert!(ran.stdout.contains("network/default"), "{ran:?}");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "the port is published no more");
    assert_nothing_left(loader.dir());
}
