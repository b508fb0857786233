//! A real sandbox for tests: runc, the static shim, a network namespace with nothing in it, and a check that nothing is
//! left behind. Needs root.
#![allow(dead_code)]

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use clawsec_core::Scope;
use clawsec_proto as pb;
use clawsec_sandbox::{Config, Hooks, Network, Output, Result, Sandboxes};
use serde_json::{Value, json};

/// Every file system right of Landlock ABI 3.
pub const ALL: u64 = 0x7fff;
/// Execute, read files, read folders.
pub const READ: u64 = 1 | 4 | 8;

/// The static shim, built by the documented command.
pub fn shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let about = Command::new("rustc").arg("-vV").output().unwrap().stdout;
        let about = String::from_utf8(about).unwrap();
        let host = about.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        let status = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
            .args(["build", "--quiet", "--release", "-p", "clawsec-init", "--target", host])
            .args(["--target-dir", "target/static"])
            .env("RUSTFLAGS", "-C target-feature=+crt-static -C panic=abort")
            .current_dir(workspace)
            .status()
            .unwrap();
        assert!(status.success(), "the shim was not built");
        workspace.join("target/static").join(host).join("release/clawsec-init")
    })
}

/// The C program `act`, static.
pub fn act() -> &'static Path {
    static ACT: OnceLock<PathBuf> = OnceLock::new();
    ACT.get_or_init(|| {
        // In the target folder, because a static is never dropped and would leave a temporary folder behind.
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("act");
        let fresh = program.with_extension(std::process::id().to_string());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/act.c");
        let status =
            Command::new("cc").args(["-static", "-O1", "-o"]).arg(&fresh).arg(source).status().unwrap();
        assert!(status.success(), "act.c was not compiled");
        fs::rename(fresh, &program).unwrap();
        program
    })
}

/// What happened, in order.
#[derive(Default)]
pub struct TestHooks {
    pub calls: Mutex<Vec<String>>,
    pub notified: Arc<AtomicU32>,
    pub layout: OnceLock<PathBuf>,
    pub fail_prepare: bool,
    /// Given to the next init to keep.
    pub kept: Mutex<Option<OwnedFd>>,
}

impl TestHooks {
    fn note(&self, what: &str) {
        self.calls.lock().unwrap().push(what.to_owned());
    }
}

/// Makes a network namespace and keeps it at `path`.
pub fn make_netns(path: &Path) {
    File::create(path).unwrap();
    let path = path.to_owned();
    std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        rustix::mount::mount_bind("/proc/thread-self/ns/net", &path).unwrap();
    })
    .join()
    .unwrap();
}

/// `struct seccomp_notif` and `struct seccomp_notif_resp`, as far as CONTINUE needs them.
#[repr(C)]
struct Notification {
    id: u64,
    rest: [u64; 9],
}
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

fn continue_all(listener: OwnedFd, notified: Arc<AtomicU32>) {
    loop {
        let mut notification = Notification { id: 0, rest: [0; 9] };
        // SAFETY: SECCOMP_IOCTL_NOTIF_RECV with a zeroed structure of its size (80 bytes).
        let received = unsafe { libc::ioctl(listener.as_raw_fd(), 0xc050_2100, &mut notification) };
        if received < 0 {
            match std::io::Error::last_os_error().raw_os_error() {
                Some(libc::EINTR) => continue,
                // ENOENT: nobody is left below the filter, or the caller is gone.
                _ => {
                    let mut poll =
                        libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
                    // SAFETY: one valid pollfd.
                    unsafe { libc::poll(&mut poll, 1, 0) };
                    if poll.revents & libc::POLLHUP != 0 {
                        return;
                    }
                    continue;
                }
            }
        }
        notified.fetch_add(1, Ordering::SeqCst);
        let response = Response { id: notification.id, value: 0, error: 0, flags: 1 };
        // SAFETY: SECCOMP_IOCTL_NOTIF_SEND with a structure of its size (24 bytes).
        unsafe { libc::ioctl(listener.as_raw_fd(), 0xc018_2101, &response) };
    }
}

#[async_trait]
impl Hooks for TestHooks {
    async fn prepare(&self, scope: &Scope, _: &pb::CreateSandboxRequest) -> Result<Network> {
        self.note("prepare");
        assert!(scope.subjects.iter().all(|subject| subject.cgroup.is_dir()));
        let netns = self.layout.get().unwrap().join("netns").join(&scope.sandbox);
        make_netns(&netns);
        if self.fail_prepare {
            return Err(clawsec_sandbox::Error::Failed("the test wants it so".into()));
        }
        Ok(Network { netns, publish: Vec::new() })
    }

    async fn created(&self, scope: &Scope, pid: u32) -> Result<Option<OwnedFd>> {
        self.note("created");
        let procs = fs::read_to_string(scope.subjects[0].cgroup.join("cgroup.procs")).unwrap();
        assert_eq!(procs.trim(), pid.to_string(), "the init is in the first subject's cgroup");
        Ok(self.kept.lock().unwrap().take())
    }

    async fn approve_shim(&self, _: &Scope, _: u32, shim: &File, argv: &[&str]) -> Result<()> {
        self.note("approve_shim");
        assert!(shim.metadata().unwrap().is_file());
        assert_eq!(argv, ["/.clawsec/init"]);
        Ok(())
    }

    async fn listener_ready(&self, _: &Scope, _: u32, listener: OwnedFd) -> Result<()> {
        self.note("listener_ready");
        let notified = self.notified.clone();
        std::thread::spawn(move || continue_all(listener, notified));
        Ok(())
    }

    async fn network_cut(&self, _: &str) {
        self.note("network_cut");
    }

    async fn gone(&self, _: &str) {
        self.note("gone");
    }
}

/// A loader's worth of sandboxes, with a runtime folder of its own.
pub struct World {
    pub place: tempfile::TempDir,
    pub instance: String,
    pub sandboxes: Sandboxes,
    pub hooks: Arc<TestHooks>,
    pub recovered: Vec<String>,
}

pub fn fresh_instance() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{:06x}{:02x}", std::process::id() & 0xff_ffff, NEXT.fetch_add(1, Ordering::SeqCst))
}

impl World {
    pub async fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap(), fresh_instance(), TestHooks::default()).await
    }

    pub async fn at(place: tempfile::TempDir, instance: String, hooks: TestHooks) -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        hooks.layout.set(place.path().to_owned()).unwrap();
        let hooks = Arc::new(hooks);
        let config = Config {
            runtime_dir: place.path().to_owned(),
            instance: instance.clone(),
            shim: shim().to_owned(),
            protected: vec![],
            without: Default::default(),
        };
        let (sandboxes, recovered) = Sandboxes::open(config, hooks.clone()).await.unwrap();
        Self { place, instance, sandboxes, hooks, recovered }
    }

    /// Creates, starts, reads all output, waits.
    pub async fn run(&self, request: pb::CreateSandboxRequest) -> (pb::SandboxInfo, String, String) {
        let name = request.name.clone();
        self.sandboxes.create(request).await.unwrap();
        let sandbox = self.sandboxes.get(&name).unwrap();
        let attachment = sandbox.io().attach().unwrap();
        self.sandboxes.start(&name).await.unwrap();
        let (stdout, stderr) = drain(attachment).await;
        (self.sandboxes.wait(&name).await.unwrap(), stdout, stderr)
    }

    pub fn calls(&self) -> Vec<String> {
        self.hooks.calls.lock().unwrap().clone()
    }

    /// Nothing is left: folders, mounts, cgroups of both versions, runc's state.
    pub fn assert_nothing_left(&self) {
        for folder in ["sandboxes", "netns", "runc"] {
            let left: Vec<_> = fs::read_dir(self.place.path().join(folder)).unwrap().flatten().collect();
            assert!(left.is_empty(), "{folder}: {left:?}");
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = self.place.path().to_str().unwrap();
        assert!(!mounts.contains(here), "mounts are left");
        let parent = format!("clawsec-{}", self.instance);
        for line in mounts.lines().filter(|line| line.contains(" - cgroup")) {
            let hierarchy = line.split(' ').nth(4).unwrap();
            assert!(!Path::new(hierarchy).join(&parent).exists(), "a cgroup is left in {hierarchy}");
        }
    }
}

pub async fn drain(mut attachment: clawsec_sandbox::Attachment) -> (String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(output) = attachment.next().await {
        match output {
            Output::Stdout(bytes) => stdout.extend(bytes),
            Output::Stderr(bytes) => stderr.extend(bytes),
        }
    }
    (String::from_utf8_lossy(&stdout).into(), String::from_utf8_lossy(&stderr).into())
}

/// Reads standard output until it has this text.
pub async fn until(attachment: &mut clawsec_sandbox::Attachment, text: &str) -> String {
    let mut seen = String::new();
    tokio::time::timeout(Duration::from_secs(20), async {
        while !seen.contains(text) {
            match attachment.next().await.unwrap_or_else(|| panic!("the output ended: {seen:?}")) {
                Output::Stdout(bytes) | Output::Stderr(bytes) => seen += &String::from_utf8_lossy(&bytes),
            }
        }
    })
    .await
    .unwrap_or_else(|_| panic!("never said {text:?}"));
    seen
}

pub fn oci() -> Value {
    let bind = |source: &Path, target: &str| json!({ "destination": target, "type": "bind", "source": source, "options": ["rbind", "ro", "nosuid", "nodev"] });
    let tmpfs = |target: &str, mode: &str| json!({ "destination": target, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", mode] });
    let namespaces = ["pid", "mount", "ipc", "uts", "cgroup", "network"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 1000, "gid": 1000 }, "cwd": "/", "noNewPrivileges": true,
            "args": ["replaced"], "env": ["PATH=/usr/bin:/bin", "GREETING=hello"],
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 1_048_576, "hard": 1u64 << 40 }],
        },
        "root": { "path": "replaced", "readonly": true },
        "hostname": "sandbox",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
            tmpfs("/tmp", "mode=1777"),
            tmpfs("/home/agent", "mode=1777"),
            bind(Path::new("/usr"), "/usr"),
            bind(act(), "/act"),
        ],
        "linux": {
            "namespaces": namespaces,
            "resources": { "pids": { "limit": 1000 } },
        },
    })
}

pub fn entry(path: &str, kind: pb::rootfs_entry::Kind) -> pb::RootfsEntry {
    pb::RootfsEntry { path: path.into(), kind: Some(kind) }
}

pub fn rule(path: &str, allowed_access: u64) -> pb::landlock_ruleset::PathRule {
    pb::landlock_ruleset::PathRule { path: path.into(), allowed_access, optional: false }
}

/// Everything readable, /tmp and /dev writable.
pub fn landlock() -> pb::LandlockRuleset {
    pb::LandlockRuleset {
        abi: 3,
        handled_access_fs: ALL,
        paths: vec![rule("/", READ), rule("/tmp", ALL), rule("/dev", ALL)],
        ..Default::default()
    }
}

pub fn request(name: &str, args: &[&str]) -> pb::CreateSandboxRequest {
    use pb::rootfs_entry::{Directory, Kind};
    let folder = |path: &str| entry(path, Kind::Directory(Directory {}));
    let link = |path: &str, target: &str| entry(path, Kind::Symlink(target.into()));
    pb::CreateSandboxRequest {
        name: name.into(),
        oci_config: oci().to_string().into_bytes(),
        rootfs: vec![
            folder("/usr"),
            folder("/home/agent"),
            folder("/run/secrets/clawsec"),
            link("/bin", "usr/bin"),
            link("/lib", "usr/lib"),
            link("/lib64", "usr/lib64"),
            entry("/act", Kind::File(Vec::new())),
        ],
        seccomp: br#"{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["symlink", "symlinkat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 } ] }"#
            .to_vec(),
        landlock: Some(landlock()),
        subjects: vec![pb::Subject { name: "main".into(), ..Default::default() }],
        tables: Some(pb::PolicyTables { epoch: 1, policy_hash: "00".into(), ..Default::default() }),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        ..Default::default()
    }
}
