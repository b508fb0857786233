//! A world for one test: a private bpf file system, a scratch cgroup with two subjects, a gate, an asker that does what
//! the test says, and a process tree behind a seccomp filter. All of it is removed at the end, also of a failing test.
#![allow(dead_code)]

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use clawsec_core::ask::Progress;
use clawsec_core::{Asker, EventSink, Inquiry, Scope, SubjectScope, pb};
use clawsec_exec_gate::{ExecGate, Layers};
use tempfile::TempDir;

pub const PATIENCE: Duration = Duration::from_secs(20);

/// Programs that the tests run, compiled once for each test binary; or found in the folder that CLAWSEC_TEST_PROGRAMS
/// names, for machines on which a compiler is slow.
pub struct Programs {
    pub actor: PathBuf,
    pub effect: PathBuf,
    pub good: PathBuf,
    pub evil: PathBuf,
    /// Leave a byte in the file that their first variable, or their working directory, is called like.
    pub by_environment: PathBuf,
    pub by_cwd: PathBuf,
    pub family: PathBuf,
}

pub fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let built = std::env::var_os("CLAWSEC_TEST_PROGRAMS").map(PathBuf::from);
        // Worktrees can share a target folder, and each has its own programs.
        let tree = env!("CARGO_MANIFEST_DIR").replace('/', "_");
        let folder = &Path::new(env!("CARGO_TARGET_TMPDIR")).join(tree);
        if built.is_none() {
            fs::create_dir_all(folder).unwrap();
        }
        let build = |source: &str, name: &str, more: &[&str]| {
            if let Some(built) = &built {
                return built.join(name);
            }
            let (path, new) = (folder.join(name), folder.join(format!("{name}.{}", std::process::id())));
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(source);
            let status = Command::new("clang")
                .args(["-static", "-O1", "-Wall", "-Werror", "-pthread"])
                .args(more)
                .arg(source)
                .arg("-o")
                .arg(&new)
                .status();
            assert!(status.unwrap().success(), "clang {name}");
            fs::rename(new, &path).unwrap();
            path
        };
        Programs {
            actor: build("actor.c", "actor", &[]),
            effect: build("effect.c", "effect", &[]),
            good: build("effect.c", "good", &["-DFIXED=\"good\""]),
            evil: build("effect.c", "evil", &["-DFIXED=\"evil\""]),
            by_environment: build("effect.c", "by-environment", &["-DBY_ENVIRONMENT"]),
            by_cwd: build("effect.c", "by-cwd", &["-DBY_CWD"]),
            family: build("family.c", "family", &[]),
        }
    })
}

/// The decision that an event tells of: alone, or with the exec that came of it.
pub fn decided(event: &pb::Event) -> Option<&pb::DecisionEvent> {
    match event.kind.as_ref()? {
        pb::event::Kind::Decision(decision) => Some(decision),
        pb::event::Kind::Exec(exec) => exec.decision.as_ref(),
        _ => None,
    }
}

/// What a test says to a question.
pub type Script = dyn Fn(&pb::Question) -> pb::Decision + Send + Sync;

/// A hold that waits for the test.
pub struct Hold {
    pub question: pb::Question,
    pub decisions: tokio::sync::mpsc::UnboundedSender<pb::Decision>,
    pub progress: tokio::sync::mpsc::UnboundedReceiver<Progress>,
}

impl Hold {
    /// The facts of the image, once it stands still.
    pub fn wait_held(&mut self) -> pb::ExecAction {
        match self.next() {
            Progress::Held(facts) => *facts.expect("a held exec has facts"),
            other => panic!("{other:?}"),
        }
    }

    pub fn next(&mut self) -> Progress {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Ok(progress) = self.progress.try_recv() {
                return progress;
            }
            assert!(Instant::now() < until, "no progress of a hold");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn decide(&self, verdict: pb::Verdict) {
        self.decisions.send(decision(verdict, "person")).unwrap();
    }
}

pub fn decision(verdict: pb::Verdict, rule: &str) -> pb::Decision {
    pb::Decision {
        verdict: verdict.into(),
        rule: rule.into(),
        layer: "test".into(),
        message: "because of the test".into(),
        cache_scope: pb::CacheScope::None.into(),
        ..Default::default()
    }
}

pub fn allow() -> pb::Decision {
    decision(pb::Verdict::Allow, "exec/allow")
}

pub fn deny() -> pb::Decision {
    decision(pb::Verdict::Deny, "exec/deny")
}

pub fn hold() -> pb::Decision {
    pb::Decision { hold_id: "h1".into(), ..decision(pb::Verdict::Hold, "exec/hold") }
}

pub struct TestAsker {
    script: Mutex<Arc<Script>>,
    next: AtomicU64,
    pub epoch: AtomicU64,
    pub questions: Mutex<Vec<pb::Question>>,
    holds: Mutex<Vec<Hold>>,
    unanswered: AtomicBool,
}

impl TestAsker {
    /// Gives no first answer any more: each question goes to the test as it is.
    pub fn keep_open(&self) {
        self.unanswered.store(true, Ordering::Relaxed);
    }

    /// What is said from now on.
    pub fn answer_with(&self, script: impl Fn(&pb::Question) -> pb::Decision + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }
}

impl Asker for TestAsker {
    fn ask(&self, mut question: pb::Question) -> Inquiry {
        question.id = self.next.fetch_add(1, Ordering::Relaxed);
        question.epoch = self.epoch.load(Ordering::Relaxed);
        let (inquiry, channel) = Inquiry::new(question.id);
        let script = Arc::clone(&self.script.lock().unwrap());
        let mut decision = script(&question);
        decision.question_id = question.id;
        decision.epoch = question.epoch;
        self.questions.lock().unwrap().push(question.clone());
        let held = decision.verdict() == pb::Verdict::Hold;
        if !self.unanswered.load(Ordering::Relaxed) {
            channel.decisions.send(decision).unwrap();
        }
        if held {
            let (decisions, progress) = (channel.decisions, channel.progress);
            self.holds.lock().unwrap().push(Hold { question, decisions, progress });
        }
        inquiry
    }

    fn epoch(&self, _sandbox: &str) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
pub struct TestSink {
    pub events: Mutex<Vec<pb::Event>>,
    pub losses: Mutex<HashMap<&'static str, u64>>,
    /// Between which moments.
    pub spans: Mutex<Vec<(u64, u64)>>,
}

impl EventSink for TestSink {
    fn emit(&self, event: pb::Event) {
        self.events.lock().unwrap().push(event);
    }

    fn lost(&self, way: &'static str, count: u64) {
        *self.losses.lock().unwrap().entry(way).or_default() += count;
    }

    fn lost_between(&self, way: &'static str, count: u64, since_us: u64, until_us: u64) {
        self.spans.lock().unwrap().push((since_us, until_us));
        self.lost(way, count);
    }
}

pub struct World {
    pub gate: Option<Arc<ExecGate>>,
    pub asker: Arc<TestAsker>,
    pub sink: Arc<TestSink>,
    pub scope: Scope,
    pub folder: TempDir,
    pub pins: PathBuf,
    layers: Layers,
    cgroup: PathBuf,
    ring_bytes: u32,
    runtime: Option<tokio::runtime::Runtime>,
}

pub fn cgroup_mount() -> PathBuf {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = text.lines().find(|line| line.contains(" - cgroup2 ")).expect("a cgroup v2 mount");
    line.split(' ').nth(4).unwrap().into()
}

fn mount_bpf(at: &Path) {
    let status = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(at).status();
    assert!(status.unwrap().success(), "a bpf file system");
}

impl World {
    /// With the verification alone, so that it is the same on each kernel.
    pub fn new(script: impl Fn(&pb::Question) -> pb::Decision + Send + Sync + 'static) -> Self {
        Self::with_both(Layers::Verify, 4 << 20, script)
    }

    pub fn with(
        layers: Layers,
        script: impl Fn(&pb::Question) -> pb::Decision + Send + Sync + 'static,
    ) -> Self {
        Self::with_both(layers, 4 << 20, script)
    }

    /// With so much room for events that were not read yet.
    pub fn with_ring(
        ring_bytes: u32,
        script: impl Fn(&pb::Question) -> pb::Decision + Send + Sync + 'static,
    ) -> Self {
        Self::with_both(Layers::Verify, ring_bytes, script)
    }

    fn with_both(
        layers: Layers,
        ring_bytes: u32,
        script: impl Fn(&pb::Question) -> pb::Decision + Send + Sync + 'static,
    ) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("clawsec-test-exec-{}-{number}", std::process::id());
        let cgroup = cgroup_mount().join(&name);
        let subjects = ["main", "tool"].map(|subject| {
            let path = cgroup.join(subject);
            fs::create_dir_all(&path).unwrap();
            let cgroup_id = fs::metadata(&path).unwrap().ino();
            SubjectScope { name: subject.into(), cgroup: path, cgroup_id }
        });
        let folder = TempDir::with_prefix("clawsec-test-").unwrap();
        // Programs of the sandbox must find their folder whatever user they are.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let bpffs = folder.path().join("bpffs");
        fs::create_dir(&bpffs).unwrap();
        mount_bpf(&bpffs);
        let asker = Arc::new(TestAsker {
            script: Mutex::new(Arc::new(script)),
            next: 1.into(),
            epoch: 1.into(),
            questions: Mutex::default(),
            holds: Mutex::default(),
            unanswered: AtomicBool::new(false),
        });
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut world = Self {
            gate: None,
            asker,
            sink: Arc::default(),
            scope: Scope { sandbox: name, subjects: subjects.into() },
            pins: bpffs.join("pins"),
            layers,
            folder,
            cgroup,
            ring_bytes,
            runtime: Some(runtime),
        };
        world.load();
        world
    }

    /// Loads a gate (again), as a new loader would.
    pub fn load(&mut self) {
        let (asker, sink) = (Arc::clone(&self.asker), Arc::clone(&self.sink));
        let handle = self.runtime.as_ref().unwrap().handle().clone();
        let gate =
            ExecGate::load_with_ring(&self.pins, self.layers, asker, sink, handle, self.ring_bytes).unwrap();
        gate.add_scope(&self.scope).unwrap();
        self.gate = Some(gate);
    }

    /// Ends everything of the gate but its pins, as the end of a loader does, without an answer to anybody.
    pub fn end_gate(&mut self, actor: &mut Actor) {
        actor.serving.take().unwrap().stop();
        self.runtime.take().unwrap().shutdown_timeout(PATIENCE);
        self.gate = None;
    }

    pub fn gate(&self) -> &ExecGate {
        self.gate.as_deref().unwrap()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// How often the program that leaves a byte in this file ran.
    pub fn count(&self, name: &str) -> u64 {
        fs::metadata(self.path(name)).map_or(0, |file| file.len())
    }

    /// Starts an actor; it is served until it ends.
    pub fn start<S: AsRef<OsStr>>(&self, args: &[S]) -> Actor {
        self.launch(Command::new(&programs().actor), args, |_| {})
    }

    /// As `run`, but the actor's own exec is the sandbox's first, as a loader's shim is.
    pub fn run_first<S: AsRef<OsStr>>(&self, args: &[S]) -> Ended {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "kill -STOP $$; exec \"$0\" \"$@\""]).arg(&programs().actor);
        let file = fs::File::open(&programs().actor).unwrap();
        let procs = self.scope.subjects[0].cgroup.join("cgroup.procs");
        let all = [programs().actor.as_os_str(), procs.as_os_str()];
        let all = all.into_iter().chain(args.iter().map(AsRef::as_ref));
        let argv: Vec<Vec<u8>> = all.map(|text| text.as_encoded_bytes().to_vec()).collect();
        let approve = |pid: i32| {
            while !fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ") {
                std::thread::sleep(Duration::from_millis(1));
            }
            fs::write(&procs, pid.to_string()).unwrap();
            self.gate().approve_once(pid, std::os::fd::AsFd::as_fd(&file), &argv).unwrap();
            // SAFETY: a signal to our own child.
            unsafe { libc::kill(pid, libc::SIGCONT) };
        };
        self.launch(shell, args, approve).wait()
    }

    fn launch<S: AsRef<OsStr>>(&self, mut command: Command, args: &[S], ready: impl FnOnce(i32)) -> Actor {
        let unfiltered = args[0].as_ref() == "-";
        let (mut own, theirs) = UnixStream::pair().unwrap();
        let number = theirs.as_raw_fd();
        command
            .arg(self.scope.subjects[0].cgroup.join("cgroup.procs"))
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .env("TEST_SECRET", "value")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: dup2 is safe between fork and exec.
        unsafe {
            command.pre_exec(move || match libc::dup2(number, 3) {
                3 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            })
        };
        let child = command.spawn().unwrap();
        drop(theirs);
        ready(child.id() as i32);
        let mut serving = None;
        if !unfiltered {
            let mut listener = [0; 4];
            own.read_exact(&mut listener).unwrap();
            let listener = take_fd(child.id() as i32, i32::from_ne_bytes(listener));
            serving = Some(self.gate().serve(&self.scope.sandbox, listener, HashMap::new()).unwrap());
            own.write_all(b"g").unwrap();
        }
        Actor { child: Some(child), serving }
    }

    /// Runs an actor to its end; gives what it wrote to stdout and stderr, and how it ended.
    pub fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Ended {
        self.start(args).wait()
    }

    pub fn take_hold(&self) -> Hold {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(hold) = self.asker.holds.lock().unwrap().pop() {
                return hold;
            }
            assert!(Instant::now() < until, "no hold came");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A hold that is there already.
    pub fn try_hold(&self) -> Option<Hold> {
        self.asker.holds.lock().unwrap().pop()
    }

    /// The exec of each question so far.
    pub fn execs(&self) -> Vec<pb::ExecAction> {
        let questions = self.asker.questions.lock().unwrap();
        let exec = |question: &pb::Question| match &question.action {
            Some(pb::question::Action::Exec(exec)) => exec.clone(),
            other => panic!("{other:?}"),
        };
        questions.iter().map(exec).collect()
    }

    pub fn questions(&self) -> usize {
        self.asker.questions.lock().unwrap().len()
    }

    /// Waits for an event that the test looks for.
    pub fn event<T>(&self, what: &str, find: impl Fn(&pb::Event) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.sink.events.lock().unwrap().iter().find_map(&find) {
                return found;
            }
            assert!(Instant::now() < until, "no event: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn killed_because(&self) -> String {
        self.event("a killed exec", |event| match &event.kind {
            Some(pb::event::Kind::Exec(exec)) if !exec.verified => Some(exec.why.clone()),
            _ => None,
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for subject in &self.scope.subjects {
            let _ = fs::write(subject.cgroup.join("cgroup.kill"), "1");
        }
        let until = Instant::now() + Duration::from_secs(5);
        for path in self.scope.subjects.iter().map(|subject| &subject.cgroup).chain([&self.cgroup]) {
            while fs::remove_dir(path).is_err() && path.exists() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if let Some(gate) = self.gate.take() {
            gate.remove_scope(&self.scope.sandbox);
            let _ = gate.unpin();
        }
        let _ = Command::new("umount").arg("-l").arg(self.folder.path().join("bpffs")).status();
        assert!(std::thread::panicking() || !self.cgroup.exists(), "a cgroup is left");
    }
}

pub fn take_fd(pid: i32, number: i32) -> OwnedFd {
    // SAFETY: no memory is passed, and the kernel gives new descriptors.
    unsafe {
        let pidfd = libc::syscall(libc::SYS_pidfd_open, pid, 0) as i32;
        assert!(pidfd >= 0);
        let pidfd = OwnedFd::from_raw_fd(pidfd);
        let fd = libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) as i32;
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}

pub struct Actor {
    child: Option<Child>,
    serving: Option<clawsec_exec_gate::notify::Serving>,
}

#[derive(Debug)]
pub struct Ended {
    pub stdout: String,
    pub stderr: String,
    pub code: Option<i32>,
    pub signal: Option<i32>,
}

impl Actor {
    pub fn id(&self) -> i32 {
        self.child.as_ref().unwrap().id() as i32
    }

    /// A line that the actor has written so far is needed while it runs.
    pub fn line(&mut self) -> String {
        let stdout = self.child.as_mut().unwrap().stdout.as_mut().unwrap();
        let mut line = Vec::new();
        let mut byte = [0];
        while stdout.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    pub fn wait(mut self) -> Ended {
        use std::os::unix::process::ExitStatusExt;
        // A hang is a failure, and its processes are killed with the world.
        let until = Instant::now() + 3 * PATIENCE;
        while self.child.as_mut().unwrap().try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "the actor hangs");
            std::thread::sleep(Duration::from_millis(1));
        }
        let output = self.child.take().unwrap().wait_with_output().unwrap();
        let ended = Ended {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
            signal: output.status.signal(),
        };
        if let Some(serving) = self.serving.take() {
            let until = Instant::now() + PATIENCE;
            while !serving.is_finished() {
                assert!(Instant::now() < until, "the listener is served although its last task ended");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        ended
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Strings for the command line of an actor.
pub fn args<const N: usize>(parts: [&dyn AsRef<OsStr>; N]) -> Vec<std::ffi::OsString> {
    parts.iter().map(|part| part.as_ref().to_owned()).collect()
}
