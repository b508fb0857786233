//! Namespaces and cgroups of the tests.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::gettid;

use super::{World, servers};

/// The ruleset that a policy is compiled into: only what leads to the gate and what stays on loopback.
pub const RULESET: &str = include_str!("ruleset.json");

/// The namespace with the servers. Its threads, and with them the namespace, end when it is dropped.
pub struct Network {
    pub netns: File,
    stop: mpsc::Sender<()>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Network {
    /// Makes the calling thread's own namespace, the "host", and one for the servers, with a cable between them.
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let (tell, told) = mpsc::channel();
        let (plug, plugged) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tell.send((gettid(), File::open("/proc/thread-self/ns/net").unwrap())).unwrap();
            plugged.recv().unwrap();
            ip("link set lo up");
            ip("addr add 10.99.0.2/24 dev cable");
            ip("link set cable up");
            ip("route add default via 10.99.0.1");
            let servers = servers::start();
            ready.send(()).unwrap();
            let _ = stopped.recv();
            drop(servers);
        });
        let (peer, netns) = told.recv().unwrap();
        ip("link set lo up");
        ip(&format!("link add plug type veth peer name cable netns {peer}"));
        ip("addr add 10.99.0.1/24 dev plug");
        ip("link set plug up");
        ip("route add default via 10.99.0.2");
        plug.send(()).unwrap();
        is_ready.recv().unwrap();
        Self { netns, stop, thread: Some(thread) }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A process that ends with the test, however that ends.
pub struct Server(pub Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `ip` in the calling thread's namespace.
pub fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Where cgroup v2 is mounted.
pub fn cgroup2_mount() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("cgroup v2 is mounted");
    line.split(' ').nth(4).unwrap().into()
}

/// Kills what is left in the cgroups below, and removes them.
pub fn empty_cgroups(top: &Path) {
    let _ = fs::write(top.join("cgroup.kill"), "1");
    let start = Instant::now();
    while top.exists() && start.elapsed() < Duration::from_secs(5) {
        for folder in fs::read_dir(top).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(folder.path());
        }
        let _ = fs::remove_dir(top);
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl World {
    /// A command that will run in the sandbox's namespace as this subject, with the sandbox's resolv.conf.
    pub fn command(&self, subject: &str, program: &str) -> Command {
        let resolver = self.folder.path().join("resolv.conf");
        fs::write(&resolver, "nameserver 127.0.0.53\noptions timeout:2 attempts:1\n").unwrap();
        let cgroup = self.scope.subject(subject).unwrap().cgroup.join("cgroup.procs");
        let procs = File::options().write(true).open(cgroup).unwrap();
        let netns = File::open(&self.netns).unwrap();
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: between fork and exec only system calls are made, on data prepared before.
        unsafe {
            command.pre_exec(move || {
                (&procs).write_all(b"0")?;
                setns(&netns, CloneFlags::CLONE_NEWNET)?;
                unshare(CloneFlags::CLONE_NEWNS)?;
                let none: Option<&str> = None;
                mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
                mount(Some(&resolver), "/etc/resolv.conf", none, MsFlags::MS_BIND, none)?;
                Ok(())
            });
        }
        command
    }

    /// A command that will run where the servers are.
    pub fn beyond(&self, program: &str) -> Command {
        let netns = self.network.as_ref().unwrap().netns.try_clone().unwrap();
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        // SAFETY: between fork and exec only one system call is made, on a descriptor opened before.
        unsafe {
            command.pre_exec(move || Ok(setns(&netns, CloneFlags::CLONE_NEWNET)?));
        }
        command
    }

    /// Starts a Python script as this subject. `helpers.py` is in front of it.
    pub fn spawn(&self, subject: &str, script: &str) -> Child {
        let script = format!("{}\n{script}", include_str!("helpers.py"));
        self.command(subject, "/usr/bin/python3").args(["-IS", "-c", &script]).spawn().unwrap()
    }

    /// Runs a Python script as this subject, and returns what it printed.
    pub fn run(&self, subject: &str, script: &str) -> String {
        finish(self.spawn(subject, script))
    }

    /// Runs curl as this subject.
    pub fn curl(&self, subject: &str, arguments: &[&str]) -> Output {
        self.command(subject, "curl").args(["-sS", "--max-time", "20"]).args(arguments).output().unwrap()
    }
}

/// Waits until the script has printed its first line.
pub fn begun(child: &mut Child) {
    let mut line = [0; 9];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"begun 100");
}

/// What a script printed. Panics when it failed, and after 30 s.
pub fn finish(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the script failed: {error}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
