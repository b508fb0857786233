//! Starts the real loader on a runtime directory of its own, and talks to it as a supervisor would.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod commands;
pub mod supervisor;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clawsec_proto::loader_client::LoaderClient;
use tonic::transport::{Channel, Endpoint};

/// The client's type.
pub type Client = LoaderClient<Channel>;

/// A running loader. Dropping it stops it with SIGTERM, as its own clean-up is part of what is tested.
pub struct Loader {
    child: Child,
    dir: PathBuf,
    _owned: Option<tempfile::TempDir>,
    log: Arc<Mutex<String>>,
}

/// The command line of a loader for `dir`.
pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clawsec-loader"));
    command.arg("--runtime-dir").arg(dir).arg("--shim").arg(shim());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The init shim: built statically by `test/tools`, or named by CLAWSEC_SHIM.
pub fn shim() -> PathBuf {
    if let Some(path) = std::env::var_os("CLAWSEC_SHIM") {
        return path.into();
    }
    let host = env!("HOST_TRIPLE");
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/static")
        .join(host)
        .join("release/clawsec-init");
    assert!(
        path.exists(),
        "build the init shim first (see bpf/init/src/lib.rs), or set CLAWSEC_SHIM: {path:?} is missing"
    );
    path
}

impl Loader {
    /// Starts one and waits until it serves.
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("clawsec-test-").tempdir_in("/run").unwrap();
        let mut loader = Self::start_in(dir.path(), &[]);
        loader._owned = Some(dir);
        loader
    }

    /// Starts one on a directory that exists, with more arguments.
    pub fn start_in(dir: &Path, arguments: &[&str]) -> Self {
        let mut child = command(dir).args(arguments).process_group(0).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in stderr.lines().map_while(Result::ok) {
                    eprintln!("    loader: {line}");
                    let mut log = log.lock().unwrap();
                    log.push_str(&line);
                    log.push('\n');
                }
            }
        });
        let mut loader = Self { child, dir: dir.to_owned(), _owned: None, log };
        let end = Instant::now() + Duration::from_secs(20);
        while !loader.log().contains(" ready ") {
            if let Some(status) = loader.child.try_wait().unwrap() {
                panic!("the loader ended: {status}\n{}", loader.log());
            }
            assert!(Instant::now() < end, "the loader does not get ready:\n{}", loader.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        loader
    }

    /// Its runtime directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until it has logged `text`, which a thread reads; all that it logged.
    pub fn logs(&self, text: &str) -> String {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let log = self.log();
            if log.contains(text) {
                return log;
            }
            assert!(Instant::now() < end, "never logged {text:?}:\n{log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A client of its own connection.
    pub async fn client(&self) -> Client {
        connect(&self.dir).await.expect("the loader serves its socket")
    }

    /// Sends a signal and waits for the end.
    pub fn signal_and_wait(&mut self, signal: i32) -> ExitStatus {
        // SAFETY: kill(2) takes two integers; the child is ours and not reaped, so the pid is its own.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "the loader does not stop:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        if std::thread::panicking() {
            // The clean-up must happen, but a second panic would hide the first.
            // SAFETY: as in `signal_and_wait`.
            unsafe { libc::kill(self.pid(), libc::SIGTERM) };
            std::thread::sleep(Duration::from_secs(3));
            let _ = self.child.kill();
            let _ = self.child.wait();
            return;
        }
        let status = self.signal_and_wait(libc::SIGTERM);
        assert!(status.success(), "the loader stopped with {status}");
    }
}

/// Connects to the loader of `dir`.
pub async fn connect(dir: &Path) -> Result<Client, tonic::transport::Error> {
    let uri = format!("unix:{}", dir.join("loader.sock").display());
    let channel = Endpoint::from_shared(uri)?.connect().await?;
    Ok(LoaderClient::new(channel).max_decoding_message_size(16 << 20))
}

/// Runs a loader that is expected to end by itself; its exit code and what it said.
pub fn run_to_end(command: &mut Command) -> (Option<i32>, String) {
    let mut child = command.spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("the loader does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}
