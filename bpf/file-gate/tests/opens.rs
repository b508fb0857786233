//! Opens of guarded files, against the real kernel: needs root, fanotify and cgroup v2.

use clawsec_core::{Asker, EventSink, FromProc, Inquiry, InquiryChannel, Scope, SubjectScope, pb};
use clawsec_file_gate::FileGate;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Answers by a script: the verdicts that each question gets, in order.
struct Scripted {
    verdicts: Vec<pb::Verdict>,
    delay: Duration,
    scope: pb::CacheScope,
    asked: AtomicU64,
    questions: Mutex<Vec<pb::Question>>,
    progress: Mutex<Vec<String>>,
}

impl Scripted {
    fn new(verdicts: &[pb::Verdict], scope: pb::CacheScope) -> Arc<Self> {
        Arc::new(Self {
            verdicts: verdicts.to_vec(),
            delay: Duration::from_millis(300),
            scope,
            asked: AtomicU64::new(0),
            questions: Mutex::default(),
            progress: Mutex::default(),
        })
    }
}

struct Shared(Arc<Scripted>);

impl Asker for Shared {
    fn ask(&self, question: pb::Question) -> Inquiry {
        let id = self.0.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.questions.lock().expect("lock").push(question);
        let (inquiry, InquiryChannel { decisions, mut progress }) = Inquiry::new(id);
        let script = Arc::clone(&self.0);
        tokio::spawn(async move {
            for (step, verdict) in script.verdicts.iter().enumerate() {
                if step > 0 {
                    tokio::time::sleep(script.delay).await;
                }
                let _ = decisions.send(pb::Decision {
                    question_id: id,
                    verdict: (*verdict).into(),
                    rule: "file/test".into(),
                    layer: "test".into(),
                    cache_scope: script.scope.into(),
                    epoch: 1,
                    // As a rule of observe mode would; an answer on a hold says nothing of it.
                    observed: if step == 0 { pb::Verdict::Deny.into() } else { 0 },
                    observed_rule: if step == 0 { "file/strict".into() } else { String::new() },
                    ..Default::default()
                });
            }
            while let Some(seen) = progress.recv().await {
                script.progress.lock().expect("lock").push(format!("{seen:?}"));
            }
        });
        inquiry
    }

    fn epoch(&self, _sandbox: &str) -> u64 {
        1
    }
}

#[derive(Default)]
struct Events(Mutex<Vec<pb::Event>>);

impl EventSink for Events {
    fn emit(&self, event: pb::Event) {
        self.0.lock().expect("lock").push(event);
    }

    fn lost(&self, way: &'static str, count: u64) {
        panic!("lost {count} events by {way}");
    }
}

/// A process in a mount namespace of its own, with a guarded folder, in a cgroup of its own.
struct Subject {
    scope: Scope,
    child: Child,
    folder: tempfile::TempDir,
}

impl Subject {
    fn start(script: &str) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("guarded")).expect("guarded");
        fs::write(folder.path().join("guarded/key"), "secret words").expect("key");
        fs::write(folder.path().join("plain"), "plain words").expect("plain");
        let name = format!(
            "clawsec-test-{}-{}",
            std::process::id(),
            folder.path().file_name().expect("name").display()
        );
        let cgroup = cgroup2().join(name);
        fs::create_dir(&cgroup).expect("cgroup");
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg(format!("mount --bind guarded guarded && echo ready && read -r go && cd . && {script}"))
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut ready = [0u8; 6];
        child.stdout.as_mut().expect("stdout").read_exact(&mut ready).expect("ready");
        fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).expect("move");
        let cgroup_id = fs::metadata(&cgroup).expect("cgroup id").ino();
        let subject = SubjectScope { name: "tool".into(), cgroup, cgroup_id };
        let scope = Scope { sandbox: "test".into(), subjects: vec![subject] };
        Self { scope, child, folder }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("pid")
    }

    fn guard(&self) -> pb::FileGuard {
        let path = self.folder.path().join("guarded").display().to_string();
        pb::FileGuard { path, open: true, names: false }
    }

    fn go(&mut self) {
        self.child.stdin.take().expect("stdin").write_all(b"go\n").expect("go");
    }

    fn output(&mut self) -> String {
        let mut text = String::new();
        self.child.stdout.take().expect("stdout").read_to_string(&mut text).expect("read");
        self.child.wait().expect("wait");
        text
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let cgroup = &self.scope.subjects[0].cgroup;
        let _ = fs::write(cgroup.join("cgroup.kill"), "1");
        let _ = self.child.wait();
        for _ in 0..100 {
            if fs::remove_dir(cgroup).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn cgroup2() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let line =
        mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).expect("a cgroup2 mount");
    Path::new(line.split(' ').nth(1).expect("mount point")).to_owned()
}

async fn run(script: &str, asker: &Arc<Scripted>) -> (String, Vec<pb::Event>) {
    let mut subject = Subject::start(script);
    let events = Arc::new(Events::default());
    let gate = FileGate::new(Arc::new(Shared(Arc::clone(asker))), events.clone(), Arc::new(FromProc));
    let files =
        gate.attach(&subject.scope, subject.pid(), &[subject.guard()]).expect("attach").expect("a guard");
    subject.go();
    let (subject, output) = tokio::task::spawn_blocking(move || {
        let output = subject.output();
        (subject, output)
    })
    .await
    .expect("output");
    drop(subject);
    drop(files);
    let events = events.0.lock().expect("lock").clone();
    (output, events)
}

fn verdicts(events: &[pb::Event]) -> Vec<pb::Verdict> {
    let decision = |event: &pb::Event| match &event.kind {
        Some(pb::event::Kind::Decision(decision)) => Some(decision.verdict()),
        _ => None,
    };
    events.iter().filter_map(decision).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_open_reads_and_one_outside_the_guard_is_not_asked() {
    let asker = Scripted::new(&[pb::Verdict::Allow], pb::CacheScope::None);
    let (output, events) = run("cat guarded/key; echo; cat plain", &asker).await;
    assert_eq!(output, "secret words\nplain words");
    assert_eq!(asker.asked.load(Ordering::SeqCst), 1);
    assert_eq!(verdicts(&events), [pb::Verdict::Allow]);
    let questions = asker.questions.lock().expect("lock");
    let Some(pb::question::Action::File(action)) = &questions[0].action else {
        panic!("not a file question")
    };
    assert!(action.path.ends_with("/guarded/key"), "{}", action.path);
    assert_eq!(questions[0].subject, "tool");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_open_fails_by_every_name_of_the_file() {
    let asker = Scripted::new(&[pb::Verdict::Deny], pb::CacheScope::None);
    let script = "for f in guarded/key guarded/../guarded/key ./guarded/./key /proc/self/root$PWD/guarded/key; \
        do cat \"$f\" 2>/dev/null && echo LEAK; done; \
        ln -s guarded/key link; cat link 2>/dev/null && echo LEAK; \
        echo x > guarded/key || echo no-write; cat plain";
    let (output, events) = run(script, &asker).await;
    assert_eq!(output, "no-write\nplain words");
    assert_eq!(verdicts(&events), vec![pb::Verdict::Deny; 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_open_waits_and_goes_on_when_allowed() {
    let asker = Scripted::new(&[pb::Verdict::Hold, pb::Verdict::Allow], pb::CacheScope::None);
    let (output, events) = run("cat guarded/key", &asker).await;
    assert_eq!(output, "secret words");
    assert_eq!(verdicts(&events), [pb::Verdict::Allow]);
    let progress = asker.progress.lock().expect("lock").clone();
    assert!(progress[0].starts_with("Held"), "{progress:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_open_fails_when_denied() {
    let asker = Scripted::new(&[pb::Verdict::Hold, pb::Verdict::Deny], pb::CacheScope::None);
    let (output, events) = run("cat guarded/key 2>/dev/null || echo refused", &asker).await;
    assert_eq!(output, "refused\n");
    assert_eq!(verdicts(&events), [pb::Verdict::Deny]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logged_open_reads_and_leaves_an_event() {
    let asker = Scripted::new(&[pb::Verdict::Log], pb::CacheScope::None);
    let (output, events) = run("cat guarded/key", &asker).await;
    assert_eq!(output, "secret words");
    assert_eq!(verdicts(&events), [pb::Verdict::Log]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_for_the_file_is_asked_once() {
    let asker = Scripted::new(&[pb::Verdict::Allow], pb::CacheScope::File);
    let (output, events) = run("cat guarded/key guarded/key guarded/key", &asker).await;
    assert_eq!(output, "secret wordssecret wordssecret words");
    assert_eq!(asker.asked.load(Ordering::SeqCst), 1);
    assert_eq!(events.len(), 3, "each open is an event");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_observed_is_in_the_events_of_allowed_cached_and_held_opens() {
    let hold = [pb::Verdict::Hold, pb::Verdict::Allow];
    for (answers, script, count) in
        [(&[pb::Verdict::Allow][..], "cat guarded/key guarded/key", 2), (&hold[..], "cat guarded/key", 1)]
    {
        let asker = Scripted::new(answers, pb::CacheScope::File);
        let (_, events) = run(script, &asker).await;
        let seen: Vec<_> = events
            .iter()
            .filter_map(|event| match &event.kind {
                Some(pb::event::Kind::Decision(seen)) => Some((seen.observed(), seen.observed_rule.as_str())),
                _ => None,
            })
            .collect();
        assert_eq!(seen, vec![(pb::Verdict::Deny, "file/strict"); count]);
        assert_eq!(asker.asked.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_ends_when_its_opener_is_killed() {
    let asker = Scripted::new(&[pb::Verdict::Hold], pb::CacheScope::None);
    let script = "timeout -s KILL 0.3 cat guarded/key >/dev/null 2>&1; echo after; sleep 0.3";
    let (output, _) = run(script, &asker).await;
    assert_eq!(output, "after\n");
    let progress = asker.progress.lock().expect("lock").clone();
    assert!(progress.iter().any(|seen| seen.starts_with("Gone")), "{progress:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_on_something_that_is_no_mount_is_refused() {
    let subject = Subject::start("true");
    let asker = Scripted::new(&[pb::Verdict::Allow], pb::CacheScope::None);
    let gate = FileGate::new(Arc::new(Shared(asker)), Arc::new(Events::default()), Arc::new(FromProc));
    let mut guard = subject.guard();
    guard.path.push_str("/key");
    let error = gate.attach(&subject.scope, subject.pid(), &[guard]).expect_err("refused");
    assert!(error.to_string().contains("not a mount of its own"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_the_loader_cannot_keep_is_refused() {
    let subject = Subject::start("true");
    let asker = Scripted::new(&[pb::Verdict::Allow], pb::CacheScope::None);
    let gate = FileGate::new(Arc::new(Shared(asker)), Arc::new(Events::default()), Arc::new(FromProc));
    let guard = pb::FileGuard { names: true, ..subject.guard() };
    let error = gate.attach(&subject.scope, subject.pid(), &[guard]).expect_err("refused");
    assert!(error.to_string().contains("cannot ask about deletes"), "{error}");
}

#[test]
fn the_probe_denies_and_allows() {
    let capability = clawsec_file_gate::probe();
    assert_eq!(capability.state(), pb::CapabilityState::Present, "{}", capability.detail);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_keeper_an_open_waits_even_when_the_guards_are_dropped() {
    let asker = Scripted::new(&[], pb::CacheScope::None);
    let mut subject = Subject::start("cat guarded/key");
    let gate = FileGate::new(Arc::new(Shared(asker)), Arc::new(Events::default()), Arc::new(FromProc));
    let files =
        gate.attach(&subject.scope, subject.pid(), &[subject.guard()]).expect("attach").expect("a guard");
    let keeper = files.keeper().expect("keeper");
    drop(files);
    // The reader that the drop aborts is gone.
    tokio::time::sleep(Duration::from_millis(200)).await;
    subject.go();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(subject.child.try_wait().expect("wait").is_none(), "the open waits");
    drop(keeper);
    assert_eq!(subject.output(), "secret words");
}
