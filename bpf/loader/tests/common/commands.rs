//! One more command in a sandbox, as the tests ask for it.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clawsec_proto as pb;
use pb::attach_output::Output;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::supervisor::{Attached, PATIENCE, Ran, Supervisor, answer, attach, exec_action, hold, request};
use super::{Client, Loader};

pub const DENIED: &str = "/usr/bin/mkdir";
pub const HELD: &str = "/usr/bin/touch";

pub async fn supervisor(client: &mut Client) -> Supervisor {
    Supervisor::attach(client, |question| {
        let program = exec_action(question).map(|exec| exec.executable).unwrap_or_default();
        Some(match program.as_str() {
            DENIED => answer(pb::Verdict::Deny),
            HELD => hold(&format!("hold-{}", question.id)),
            _ => answer(pb::Verdict::Allow),
        })
    })
    .await
}

/// A sandbox with a terminal's file system and two subjects, whose main command waits.
pub async fn sandbox(client: &mut Client, name: &str) -> Attached {
    sandbox_that(client, name, "echo ready; read end").await
}

/// As [`sandbox`], with a shell script that says that it is ready.
pub async fn sandbox_that(client: &mut Client, name: &str, script: &str) -> Attached {
    let mut request = request(name, &["/usr/bin/sh", "-c", script]);
    let mut oci: serde_json::Value = serde_json::from_slice(&request.oci_config).unwrap();
    let options = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    oci["mounts"].as_array_mut().unwrap().push(json!({
        "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": options,
    }));
    let environment = json!(["PATH=/usr/bin:/bin", "MARK=of the policy", "BASH_ENV=/tmp/none"]);
    oci["process"]["env"] = environment;
    request.oci_config = oci.to_string().into_bytes();
    let mut narrow = request.landlock.clone().unwrap();
    narrow.paths.retain(|rule| rule.path != "/tmp");
    request.subjects.push(pb::Subject {
        name: "tool".into(),
        entry_path: "/.clawsec/sh".into(),
        entry_exec: "/usr/bin/sh".into(),
        entry_landlock: Some(narrow),
        ..Default::default()
    });
    client.create_sandbox(request).await.unwrap();
    let attached = attach(client, name).await;
    client.start_sandbox(pb::StartSandboxRequest { name: name.into() }).await.unwrap();
    attached.says("ready").await;
    attached
}

pub fn start(args: &[&str]) -> pb::ExecStart {
    pb::ExecStart { args: args.iter().map(ToString::to_string).collect(), ..Default::default() }
}

pub fn shell(script: &str) -> pb::ExecStart {
    start(&["sh", "-c", script])
}

/// The first child of a process, by its number.
pub fn child_of(pid: u32) -> Option<String> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next().map(str::to_owned)
}

pub fn comm(pid: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// A command that was started, read in the background.
pub struct Command {
    pub pid: u32,
    pub sandbox_pid: u32,
    pub input: mpsc::Sender<pb::AttachInput>,
    pub stdout: Arc<Mutex<Vec<u8>>>,
    pub task: tokio::task::JoinHandle<Result<Ran, tonic::Status>>,
}

pub type Outputs = tonic::Streaming<pb::AttachOutput>;

pub async fn begin(
    client: &mut Client,
    name: &str,
    exec: pb::ExecStart,
) -> Result<(u32, u32, mpsc::Sender<pb::AttachInput>, Outputs), tonic::Status> {
    let (input, inputs) = mpsc::channel(16);
    let resize = exec.terminal.then_some(pb::TerminalSize { rows: 33, columns: 111 });
    let first = pb::AttachInput { name: name.into(), exec: Some(exec), resize, ..Default::default() };
    input.send(first).await.unwrap();
    let mut outputs = client.exec(ReceiverStream::new(inputs)).await?.into_inner();
    match outputs.message().await?.unwrap().output {
        Some(Output::Started(started)) => Ok((started.pid, started.sandbox_pid, input, outputs)),
        other => panic!("{other:?} came first"),
    }
}

pub async fn exec(client: &mut Client, name: &str, exec: pb::ExecStart) -> Result<Command, tonic::Status> {
    let (pid, sandbox_pid, input, mut outputs) = begin(client, name, exec).await?;
    let stdout = Arc::new(Mutex::new(Vec::new()));
    let task = tokio::spawn({
        let stdout = Arc::clone(&stdout);
        async move {
            let mut ran = Ran::default();
            while let Some(message) = outputs.message().await? {
                match message.output.unwrap() {
                    Output::Stdout(bytes) => stdout.lock().unwrap().extend(bytes),
                    Output::Stderr(bytes) => ran.stderr.push_str(&String::from_utf8_lossy(&bytes)),
                    Output::Exit(exit) => ran.code = Some(exit.code),
                    other => panic!("{other:?} came late"),
                }
            }
            ran.stdout = String::from_utf8_lossy(&stdout.lock().unwrap()).into_owned();
            Ok(ran)
        }
    });
    Ok(Command { pid, sandbox_pid, input, stdout, task })
}

impl Command {
    pub async fn end(self) -> Result<Ran, tonic::Status> {
        tokio::time::timeout(PATIENCE, self.task).await.expect("the command ends").unwrap()
    }

    pub async fn says(&self, text: &str) {
        let said = || String::from_utf8_lossy(&self.stdout.lock().unwrap()).into_owned();
        until(&format!("it says {text:?}"), || said().contains(text)).await;
    }

    pub async fn send(&self, input: pb::AttachInput) {
        self.input.send(input).await.unwrap();
    }
}

pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !done() {
        assert!(tokio::time::Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn ran(client: &mut Client, name: &str, start: pb::ExecStart) -> Ran {
    let command = exec(client, name, start).await.unwrap();
    let eof = pb::AttachInput { stdin_eof: true, ..Default::default() };
    // One that was denied has ended before it could be told.
    let _ = command.input.send(eof).await;
    command.end().await.unwrap()
}

/// Ends a sandbox of [`sandbox`] by its own main command, and checks that nothing of it is left.
pub async fn finish(client: &mut Client, loader: &Loader, name: &str, main: Attached) {
    main.input.send(pb::AttachInput { stdin: b"end\n".into(), ..Default::default() }).await.unwrap();
    main.end().await;
    client.wait_sandbox(pb::WaitSandboxRequest { name: name.into() }).await.unwrap();
    let folder = format!("clawsec-{}/{name}", clawsec_loader::process::instance(loader.dir()));
    for hierarchy in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        assert!(!Path::new(hierarchy).join(&folder).exists(), "its cgroups are gone");
    }
}
