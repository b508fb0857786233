//! Every way into a sandbox has the same gate, or dies before its first instruction. Each way tries a program that is
//! allowed and one that is denied, and what counts is what is there afterwards. Run as root, with runc.

mod common;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use clawsec_proto as pb;
use common::Loader;
use common::supervisor::{Supervisor, answer, attach, exec_action, request, run};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const ALLOWED: &str = "/usr/bin/touch";
const DENIED: &str = "/usr/bin/mkdir";

async fn supervisor(client: &mut common::Client) -> Supervisor {
    Supervisor::attach(client, |question| {
        let denied = exec_action(question).is_some_and(|exec| exec.executable == DENIED);
        Some(answer(if denied { pb::Verdict::Deny } else { pb::Verdict::Allow }))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_command_and_its_children_are_gated_with_and_without_a_terminal() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let _supervisor = supervisor(&mut client).await;
    for terminal in [false, true] {
        let kind = if terminal { "terminal" } else { "pipe" };
        let with = |name: &str, args: &[&str]| {
            let request = request(&format!("{kind}-{name}"), args);
            let mut oci: serde_json::Value = serde_json::from_slice(&request.oci_config).unwrap();
            let options = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
            oci["mounts"].as_array_mut().unwrap().push(serde_json::json!({
                "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": options,
            }));
            pb::CreateSandboxRequest { terminal, oci_config: oci.to_string().into_bytes(), ..request }
        };
        let ran = run(&mut client, with("allowed", &[ALLOWED, "/tmp/ran"])).await;
        assert_eq!(ran.code, Some(0), "{kind}: {ran:?}");
        let ran = run(&mut client, with("denied", &[DENIED, "/tmp/ran"])).await;
        assert_eq!(ran.code, Some(126), "{kind}: {ran:?}");
        let script = format!(
            "{ALLOWED} /tmp/allowed; {DENIED} /tmp/denied; test -e /tmp/allowed && echo A; test -e /tmp/denied || echo D"
        );
        // `test` is the shell's own.
        let ran = run(&mut client, with("children", &["/usr/bin/sh", "-c", &script])).await;
        let said: Vec<&str> = ran.stdout.lines().map(str::trim).filter(|line| line.len() == 1).collect();
        assert_eq!(said, ["A", "D"], "{kind}: {ran:?}");
    }
}

/// A sandbox that stays, as who comes from outside finds it.
struct Inside {
    name: &'static str,
    /// Its main command, as the host numbers it.
    pid: i32,
    /// The `cgroup.procs` of its subject.
    procs: PathBuf,
    runc: PathBuf,
    scratch: PathBuf,
}

impl Inside {
    fn left(&self, name: &str) -> bool {
        Path::new(&format!("/proc/{}/root/tmp/{name}", self.pid)).exists() || self.scratch.join(name).exists()
    }

    /// A process of the host that stops itself, is moved into the cgroup, and then runs `command`.
    fn moved(&self, command: &str) -> ExitStatus {
        let mut child = Command::new("/bin/sh");
        child.args(["-c", &format!("kill -STOP $$; exec {command}")]).stdin(Stdio::null());
        let mut child = child.spawn().unwrap();
        let stat = format!("/proc/{}/stat", child.id());
        while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::fs::write(&self.procs, child.id().to_string()).unwrap();
        // SAFETY: a signal to our own child, which is not reaped.
        unsafe { libc::kill(child.id() as i32, libc::SIGCONT) };
        child.wait().unwrap()
    }

    fn enter(&self) -> String {
        let pid = self.pid;
        format!("/usr/bin/nsenter --target {pid} --mount --pid --net --ipc --uts --cgroup --")
    }
}

/// A way in, what it is called, and whether it got its program to run. `%` in a command is the program.
type Way = (&'static str, fn(&Inside, &str) -> ExitStatus);

fn shell(command: &str) -> ExitStatus {
    Command::new("/bin/sh").args(["-c", &format!("exec {command}")]).stdin(Stdio::null()).status().unwrap()
}

const WAYS: &[Way] = &[
    ("moved", |inside, program| inside.moved(&format!("{program} {}/moved", inside.scratch.display()))),
    ("nsenter", |inside, program| shell(&format!("{} {program} /tmp/nsenter", inside.enter()))),
    ("nsenter-all", |inside, program| {
        shell(&format!("/usr/bin/nsenter --target {} --all -- {program} /tmp/nsenter-all", inside.pid))
    }),
    ("mount-only", |inside, program| {
        shell(&format!("/usr/bin/nsenter --target {} --mount -- {program} /tmp/mount-only", inside.pid))
    }),
    ("moved-nsenter", |inside, program| {
        inside.moved(&format!("{} {program} /tmp/moved-nsenter", inside.enter()))
    }),
    ("runc-exec", |inside, program| {
        let (root, name) = (inside.runc.display(), inside.name);
        shell(&format!("/usr/bin/env runc --root {root} exec {name} {program} /tmp/runc-exec"))
    }),
    ("runc-exec-root", |inside, program| {
        let (root, name) = (inside.runc.display(), inside.name);
        shell(&format!("/usr/bin/env runc --root {root} exec --user 0 {name} {program} /tmp/runc-exec-root"))
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_from_outside_runs_nothing_and_is_on_record() {
    let loader = Loader::start();
    let mut client = loader.client().await;
    let _supervisor = supervisor(&mut client).await;
    let name = "inside";
    let script = "echo ready; read end; /usr/bin/touch /tmp/after; echo done";
    client.create_sandbox(request(name, &["/usr/bin/sh", "-c", script])).await.unwrap();
    let attached = attach(&mut client, name).await;
    client.start_sandbox(pb::StartSandboxRequest { name: name.into() }).await.unwrap();
    attached.says("ready").await;

    let hierarchy = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let hierarchy = hierarchy.lines().find(|line| line.contains(" - cgroup2 ")).unwrap();
    let hierarchy = hierarchy.split(' ').nth(4).unwrap();
    let folder = format!("clawsec-{}/{name}/main", clawsec_loader::process::instance(loader.dir()));
    let procs = Path::new(hierarchy).join(folder).join("cgroup.procs");
    let pid = std::fs::read_to_string(&procs).unwrap();
    let pid = pid.lines().map(|line| line.parse().unwrap()).max().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let runc = loader.dir().join("runc");
    let inside = Inside { name, pid, procs, runc, scratch: scratch.path().to_owned() };

    // The same ways work where there is no sandbox.
    let outside = scratch.path().join("outside");
    assert!(shell(&format!("{ALLOWED} {}", outside.display())).success() && outside.exists());
    for (way, attempt) in WAYS {
        for program in [ALLOWED, DENIED] {
            let status = attempt(&inside, program);
            assert!(!status.success(), "{way} {program}: {status}");
            assert!(!inside.left(way), "{way} {program} had an effect");
            println!("{way} {program}: {:?} {:?}", status.code(), status.signal());
        }
    }
    // The way that there is for it: the same gate.
    for (program, code) in [(ALLOWED, 0), (DENIED, 126)] {
        let path = format!("/tmp/asked-{code}");
        assert_eq!(asked(&mut client, name, &[program, &path]).await, Some(code), "{program}");
        assert_eq!(inside.left(&format!("asked-{code}")), program == ALLOWED, "{program}");
    }
    // The sandbox itself goes on.
    let input = pb::AttachInput { stdin: b"go\n".into(), ..Default::default() };
    attached.input.send(input).await.unwrap();
    attached.says("done").await;
    attached.end().await;

    let (_acks, requests) = mpsc::channel(8);
    let mut stream = client.events(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let mut killed = 0;
    loop {
        let batch = tokio::time::timeout(Duration::from_secs(10), stream.message()).await.unwrap();
        let events = batch.unwrap().unwrap().events;
        killed += events.iter().filter(|event| event.sandbox == name && is_killed(event)).count();
        let ended = |event: &pb::Event| matches!(&event.kind, Some(pb::event::Kind::SandboxEvent(it)) if it.state() == pb::SandboxState::Exited);
        if events.iter().any(ended) {
            break;
        }
    }
    assert_eq!(killed, 2 * WAYS.len(), "each is on record");
}

/// Runs a command in a sandbox as the loader is asked to; its exit code.
async fn asked(client: &mut common::Client, name: &str, args: &[&str]) -> Option<i32> {
    let args = args.iter().map(ToString::to_string).collect();
    let exec = Some(pb::ExecStart { args, ..Default::default() });
    let first = pb::AttachInput { name: name.into(), exec, stdin_eof: true, ..Default::default() };
    let mut outputs = client.exec(tokio_stream::once(first)).await.unwrap().into_inner();
    let mut code = None;
    while let Some(message) = outputs.message().await.unwrap() {
        if let Some(pb::attach_output::Output::Exit(exit)) = message.output {
            code = Some(exit.code);
        }
    }
    code
}

fn is_killed(event: &pb::Event) -> bool {
    matches!(&event.kind, Some(pb::event::Kind::Exec(exec)) if !exec.verified && exec.why.contains("nothing was approved"))
}
