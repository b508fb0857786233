//! The other side of the contract, scripted: answers questions, attaches, reads events.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use clawsec_proto as pb;
use pb::loader_message::Message;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Client;

/// How long anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A supervisor whose answers are made by a function.
pub struct Supervisor {
    /// What it was told, in order.
    pub heard: Arc<Mutex<Vec<Message>>>,
    /// More decisions than the function's: the second ones on holds.
    pub decisions: mpsc::Sender<pb::SupervisorMessage>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer to a question, without id and epoch.
pub fn answer(verdict: pb::Verdict) -> pb::Decision {
    pb::Decision {
        verdict: verdict.into(),
        rule: "test/rule".into(),
        layer: "supervisor".into(),
        message: "the test says so".into(),
        cache_scope: pb::CacheScope::None.into(),
        ..Default::default()
    }
}

/// A hold that lasts a minute.
pub fn hold(id: &str) -> pb::Decision {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let deadline_us = u64::try_from((now + Duration::from_secs(60)).as_micros()).unwrap();
    pb::Decision { hold_id: id.into(), deadline_us, ..answer(pb::Verdict::Hold) }
}

impl Supervisor {
    /// Takes over the stream of decisions. `decide` returns `None` for no answer.
    pub async fn attach(
        client: &mut Client,
        decide: impl Fn(&pb::Question) -> Option<pb::Decision> + Send + 'static,
    ) -> Self {
        let (decisions, outgoing) = mpsc::channel(64);
        let mut incoming = client.decide(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn({
            let (heard, decisions) = (Arc::clone(&heard), decisions.clone());
            async move {
                while let Ok(Some(message)) = incoming.message().await {
                    let message = message.message.unwrap();
                    if let Message::Question(question) = &message
                        && let Some(decision) = decide(question)
                    {
                        let decision =
                            pb::Decision { question_id: question.id, epoch: question.epoch, ..decision };
                        decisions.send(decision_message(decision)).await.unwrap();
                    }
                    heard.lock().unwrap().push(message);
                }
            }
        });
        Self { heard, decisions, task }
    }

    /// One that allows everything.
    pub async fn allowing(client: &mut Client) -> Self {
        Self::attach(client, |_| Some(answer(pb::Verdict::Allow))).await
    }

    /// Sends a decision.
    pub async fn decide(&self, decision: pb::Decision) {
        self.decisions.send(decision_message(decision)).await.unwrap();
    }

    /// Waits until it was told something that `wanted` takes.
    pub async fn hears<T>(&self, mut wanted: impl FnMut(&Message) -> Option<T>) -> T {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.heard.lock().unwrap().iter().find_map(&mut wanted) {
                return found;
            }
            assert!(tokio::time::Instant::now() < end, "never heard; but {:#?}", self.heard.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The executables that were asked about, in order.
    pub fn asked_execs(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        let execs = heard.iter().filter_map(exec_of).map(|(_, exec)| exec.executable);
        execs.collect()
    }
}

fn decision_message(decision: pb::Decision) -> pb::SupervisorMessage {
    pb::SupervisorMessage { message: Some(pb::supervisor_message::Message::Decision(decision)) }
}

/// The question of a message, if it is about an exec.
pub fn exec_of(message: &Message) -> Option<(pb::Question, pb::ExecAction)> {
    match message {
        Message::Question(question) => exec_action(question).map(|exec| (question.clone(), exec)),
        _ => None,
    }
}

/// The exec that a question is about.
pub fn exec_action(question: &pb::Question) -> Option<pb::ExecAction> {
    match &question.action {
        Some(pb::question::Action::Exec(exec)) => Some(exec.clone()),
        _ => None,
    }
}

/// What a main command wrote, and how it ended.
#[derive(Debug, Default)]
pub struct Ran {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit code.
    pub code: Option<i32>,
}

/// An attachment, reading in the background.
pub struct Attached {
    task: tokio::task::JoinHandle<Ran>,
    /// What stdout has so far.
    pub stdout: Arc<Mutex<String>>,
    /// Input.
    pub input: mpsc::Sender<pb::AttachInput>,
}

/// Attaches; returns once output is carried.
pub async fn attach(client: &mut Client, name: &str) -> Attached {
    try_attach(client, name).await.unwrap()
}

async fn try_attach(client: &mut Client, name: &str) -> Result<Attached, tonic::Status> {
    let (input, inputs) = mpsc::channel(16);
    input.send(pb::AttachInput { name: name.into(), ..Default::default() }).await.unwrap();
    let mut outputs = client.attach(ReceiverStream::new(inputs)).await?.into_inner();
    let first = outputs.message().await.unwrap().unwrap();
    assert_eq!(first.output, Some(pb::attach_output::Output::Attached(true)));
    let stdout = Arc::new(Mutex::new(String::new()));
    let task = tokio::spawn({
        let stdout = Arc::clone(&stdout);
        async move {
            let mut ran = Ran::default();
            while let Ok(Some(message)) = outputs.message().await {
                match message.output.unwrap() {
                    pb::attach_output::Output::Stdout(bytes) => {
                        ran.stdout.push_str(&String::from_utf8_lossy(&bytes));
                        stdout.lock().unwrap().clone_from(&ran.stdout);
                    }
                    pb::attach_output::Output::Stderr(bytes) => {
                        ran.stderr.push_str(&String::from_utf8_lossy(&bytes));
                    }
                    pb::attach_output::Output::Exit(exit) => ran.code = Some(exit.code),
                    pb::attach_output::Output::Attached(_) => panic!("attached twice"),
                    other => panic!("not of an attachment: {other:?}"),
                }
            }
            ran
        }
    });
    Ok(Attached { task, stdout, input })
}

impl Attached {
    /// Goes away before the end.
    pub async fn leave(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Waits for the end.
    pub async fn end(self) -> Ran {
        tokio::time::timeout(PATIENCE, self.task).await.expect("the main command ends").unwrap()
    }

    /// Waits until stdout contains `text`.
    pub async fn says(&self, text: &str) {
        let end = tokio::time::Instant::now() + PATIENCE;
        while !self.stdout.lock().unwrap().contains(text) {
            assert!(
                tokio::time::Instant::now() < end,
                "never said {text:?}: {:?}",
                self.stdout.lock().unwrap()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// As [`attach`], once whoever was attached before is known to be gone.
pub async fn attach_when_free(client: &mut Client, name: &str) -> Attached {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        match try_attach(client, name).await {
            Ok(attached) => return attached,
            Err(status) => assert!(tokio::time::Instant::now() < end, "never free: {status}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Creates, attaches, starts, and waits for the end.
pub async fn run(client: &mut Client, request: pb::CreateSandboxRequest) -> Ran {
    let name = request.name.clone();
    client.create_sandbox(request).await.unwrap();
    let attached = attach(client, &name).await;
    client.start_sandbox(pb::StartSandboxRequest { name }).await.unwrap();
    attached.end().await
}

/// Every file system right of Landlock ABI 3; and read and execute.
const ALL: u64 = 0x7fff;
const READ: u64 = 1 | 4 | 8;

/// A sandbox on the host's /usr, as uid 1000, in which every exec is asked about.
pub fn request(name: &str, args: &[&str]) -> pb::CreateSandboxRequest {
    use pb::rootfs_entry::{Directory, Kind};
    let entry = |path: &str, kind| pb::RootfsEntry { path: path.into(), kind: Some(kind) };
    let folder = |path: &str| entry(path, Kind::Directory(Directory {}));
    let link = |path: &str, target: &str| entry(path, Kind::Symlink(target.into()));
    let rule = |path: &str, allowed_access| pb::landlock_ruleset::PathRule {
        path: path.into(),
        allowed_access,
        optional: false,
    };
    let namespaces = ["pid", "mount", "ipc", "uts", "cgroup", "network"].map(|kind| json!({ "type": kind }));
    let oci = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 1000, "gid": 1000 }, "cwd": "/tmp", "noNewPrivileges": true,
            "args": ["replaced"], "env": ["PATH=/usr/bin:/bin"],
        },
        "root": { "path": "replaced", "readonly": true },
        "hostname": "sandbox",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
            { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"] },
            { "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro", "nosuid", "nodev"] },
        ],
        "linux": { "namespaces": namespaces, "resources": { "pids": { "limit": 200 } } },
    });
    let seccomp = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["execve", "execveat"], "action": "SCMP_ACT_NOTIFY" }],
    });
    pb::CreateSandboxRequest {
        name: name.into(),
        oci_config: oci.to_string().into_bytes(),
        rootfs: vec![
            folder("/usr"),
            folder("/run/secrets/clawsec"),
            link("/bin", "usr/bin"),
            link("/lib", "usr/lib"),
            link("/lib64", "usr/lib64"),
        ],
        seccomp: seccomp.to_string().into_bytes(),
        landlock: Some(pb::LandlockRuleset {
            abi: 3,
            handled_access_fs: ALL,
            paths: vec![rule("/", READ), rule("/tmp", ALL), rule("/dev", ALL)],
            ..Default::default()
        }),
        subjects: vec![pb::Subject { name: "main".into(), ..Default::default() }],
        tables: Some(tables(1, pb::Verdict::Deny)),
        args: args.iter().map(ToString::to_string).collect(),
        supervisor_grace_ms: 2000,
        ..Default::default()
    }
}

/// Tables of an epoch, with one verdict for every connection.
pub fn tables(epoch: u64, network: pb::Verdict) -> pb::PolicyTables {
    pb::PolicyTables {
        epoch,
        policy_hash: format!("{epoch:064x}"),
        network: Some(pb::NetworkTable {
            default_verdict: network.into(),
            default_rule: "network/default".into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}
