//! A world for one test: a private bpf file system, a scratch cgroup with two subjects, a gate, an asker that does what
//! the test says, and a process tree behind a seccomp filter. All of it is removed at the end, also of a failing test.
#![allow(dead_code, unused_imports, reason = "each test file uses its own part")]

mod actor;
mod asker;
mod programs;
pub mod script;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use actor::{Actor, Ended, args, take_fd};
pub use asker::{Hold, Script, TestAsker, TestSink, allow, decided, decision, deny, hold};
use clawsec_core::{Scope, SubjectScope, Without, pb};
use clawsec_exec_gate::{ExecGate, Layers};
pub use programs::programs;
use tempfile::TempDir;

/// Mounts the root read-only, and takes away what else shows its file system.
const READ_ONLY: &str = r#"
while read -r _ _ device _ point _; do
    [ "$point" = / ] && root=$device
done < /proc/self/mountinfo
while read -r _ _ device _ point _; do
    [ "$device" = "$root" ] && [ "$point" != / ] && /usr/bin/umount -l "$point"
done < /proc/self/mountinfo
/usr/bin/mount -o remount,bind,ro / && exec "$0" "$@"
"#;

pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct World {
    pub gate: Option<Arc<ExecGate>>,
    pub asker: Arc<TestAsker>,
    pub sink: Arc<TestSink>,
    pub scope: Scope,
    pub folder: TempDir,
    pub pins: PathBuf,
    layers: Layers,
    pub without: Without,
    cgroup: PathBuf,
    ring_bytes: u32,
    runtime: Option<tokio::runtime::Runtime>,
}

pub fn cgroup_mount() -> PathBuf {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = text.lines().find(|line| line.contains(" - cgroup2 ")).expect("a cgroup v2 mount");
    line.split(' ').nth(4).unwrap().into()
}

// Any test can be run as on a lesser kernel.
fn as_told() -> Without {
    let named = std::env::var("CLAWSEC_TEST_WITHOUT").unwrap_or_default();
    Without {
        typed_tracepoints: named.contains("tp_btf"),
        wait_killable: named.contains("wait-killable"),
        ..Without::NOTHING
    }
}

fn mount_bpf(at: &Path) {
    let status = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(at).status();
    assert!(status.unwrap().success(), "a bpf file system");
}

impl World {
    /// With the verification alone, so that it is the same on each kernel.
    pub fn new(script: impl Fn(&pb::Question) -> pb::Decision + Send + Sync + 'static) -> Self {
        Self::with(Layers::Verify, script)
    }

    pub fn with(
        layers: Layers,
        script: impl Fn(&pb::Question) -> pb::Decision + Send + Sync + 'static,
    ) -> Self {
        Self::with_all(layers, as_told(), 4 << 20, script)
    }

    /// With so much room for events that were not read yet.
    pub fn with_ring(
        ring_bytes: u32,
        script: impl Fn(&pb::Question) -> pb::Decision + Send + Sync + 'static,
    ) -> Self {
        Self::with_all(Layers::Verify, as_told(), ring_bytes, script)
    }

    /// As on a kernel that lacks something.
    pub fn without(
        without: Without,
        script: impl Fn(&pb::Question) -> pb::Decision + Send + Sync + 'static,
    ) -> Self {
        Self::with_all(Layers::Verify, without, 4 << 20, script)
    }

    fn with_all(
        layers: Layers,
        without: Without,
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
        let asker = Arc::new(TestAsker::new(script));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut world = Self {
            gate: None,
            asker,
            sink: Arc::default(),
            scope: Scope { sandbox: name, subjects: subjects.into() },
            pins: bpffs.join("pins"),
            layers,
            without,
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
        let (layers, without) = (self.layers, self.without);
        let gate =
            ExecGate::load_with_ring(&self.pins, layers, without, asker, sink, handle, self.ring_bytes);
        let gate = gate.unwrap();
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

    /// As `run`, where nothing of the root's file system can be written.
    pub fn run_read_only<S: AsRef<OsStr>>(&self, args: &[S]) -> Ended {
        let mut shell = Command::new("/usr/bin/unshare");
        shell.args(["-m", "/bin/sh", "-c", READ_ONLY]).arg(&programs().actor);
        self.launch(shell, args, |_| {}).wait()
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
            .envs(self.without.wait_killable.then_some(("TEST_INTERRUPTIBLE", "1")))
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
        Actor::new(child, serving)
    }

    /// Runs an actor to its end; gives what it wrote to stdout and stderr, and how it ended.
    pub fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Ended {
        self.start(args).wait()
    }

    /// As `run`, for an actor that tries something so many times: each may take what an interpreter takes to start on a
    /// busy machine.
    pub fn run_tries<S: AsRef<OsStr>>(&self, args: &[S], tries: u64) -> Ended {
        self.start(args).wait_within(3 * PATIENCE + tries as u32 * Duration::from_millis(100))
    }

    pub fn take_hold(&self) -> Hold {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(hold) = self.asker.take_hold() {
                return hold;
            }
            assert!(Instant::now() < until, "no hold came");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Mounts the root read-only, and takes away what else shows its file system.
    const READ_ONLY: &str = r#"
while read -r _ _ device _ point _; do
    [ "$point" = / ] && root=$device
done < /proc/self/mountinfo
while read -r _ _ device _ point _; do
    [ "$device" = "$root" ] && [ "$point" != / ] && /usr/bin/umount -l "$point"
done < /proc/self/mountinfo
/usr/bin/mount -o remount,bind,ro / && exec "$0" "$@"
"#;

    /// A hold that is there already.
    pub fn try_hold(&self) -> Option<Hold> {
        self.asker.take_hold()
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

/// SHA-256 of a file, as hexadecimal digits.
pub fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}
