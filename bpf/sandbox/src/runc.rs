//! runc's command line.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

use crate::error::{Context, Error, Result};
use crate::sys;

/// runc takes some 30 ms; this is for a host that is very busy.
const TIMEOUT: Duration = Duration::from_secs(30);

/// runc with a state folder of its own.
#[derive(Debug, Clone)]
pub struct Runc {
    root: PathBuf,
}

/// Descriptors of a container.
#[derive(Debug)]
pub enum Streams {
    /// Standard input, output and error.
    Pipes([OwnedFd; 3]),
    /// The socket on which runc hands out the terminal.
    Console(PathBuf),
}

/// One line of runc's log.
#[derive(Deserialize)]
struct LogLine {
    level: String,
    msg: String,
}

impl Runc {
    /// `root` is runc's `--root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Makes the container; nothing of it runs yet. Returns the pid of its init.
    ///
    /// # Errors
    /// With runc's own words.
    pub async fn create(&self, name: &str, bundle: &Path, streams: Streams, socket: OwnedFd) -> Result<u32> {
        let pid_file = bundle.join("pid");
        let mut command = self.command(bundle);
        command.arg("create").arg("--bundle").arg(bundle).arg("--pid-file").arg(&pid_file);
        command.args(["--preserve-fds", "1"]);
        match streams {
            Streams::Pipes([stdin, stdout, stderr]) => {
                command.stdin(stdin).stdout(stdout).stderr(stderr);
            }
            Streams::Console(socket) => {
                command.arg("--console-socket").arg(socket);
            }
        }
        command.arg(name);
        sys::pass_as_shim_socket(&mut command, socket.as_raw_fd());
        self.run(command, bundle, "create").await?;
        let text = fs::read_to_string(&pid_file).context("runc's pid file")?;
        text.trim().parse().context("runc's pid file")
    }

    /// Lets the container's init exec.
    ///
    /// # Errors
    /// With runc's own words.
    pub async fn start(&self, name: &str, bundle: &Path) -> Result<()> {
        let mut command = self.command(bundle);
        command.args(["start", name]);
        self.run(command, bundle, "start").await
    }

    /// Kills and forgets a container. One that runc does not know is fine.
    ///
    /// # Errors
    /// With runc's own words.
    pub async fn delete(&self, name: &str) -> Result<()> {
        if !self.root.join(name).exists() {
            return Ok(());
        }
        let mut command = self.command(Path::new("/nonexistent"));
        command.args(["delete", "--force", name]).stderr(Stdio::piped());
        let child = command.spawn().context("starting runc")?;
        let output = tokio::time::timeout(TIMEOUT, child.wait_with_output()).await;
        let output = output.map_err(|_| Error::Failed("runc delete did not end in time".into()))?;
        let output = output.context("runc delete")?;
        if !output.status.success() {
            return Err(Error::Failed(format!(
                "runc delete: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )));
        }
        Ok(())
    }

    /// Names of the containers that runc has a state of.
    pub fn known(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.root) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    fn command(&self, bundle: &Path) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(&self.root);
        if bundle.is_dir() {
            command.arg("--log").arg(bundle.join("runc.log")).args(["--log-format", "json"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        // What runc does must not depend on who started the loader.
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    async fn run(&self, mut command: Command, bundle: &Path, what: &str) -> Result<()> {
        let mut child = command.spawn().context("starting runc")?;
        // The command holds the other ends of the pipes.
        drop(command);
        let status = tokio::time::timeout(TIMEOUT, child.wait()).await;
        let status = status.map_err(|_| Error::Failed(format!("runc {what} did not end in time")))?;
        if status.context("runc")?.success() {
            return Ok(());
        }
        Err(Error::Failed(format!("runc {what}: {}", last_error(&bundle.join("runc.log")))))
    }
}

fn last_error(log: &Path) -> String {
    fs::read_to_string(log)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| serde_json::from_str::<LogLine>(line).ok())
        .rfind(|line| line.level == "error")
        .map_or_else(|| "it failed without a word".to_owned(), |line| line.msg)
}

/// runc's version.
///
/// # Errors
/// It is not installed.
pub(crate) fn version() -> Result<String> {
    let output = std::process::Command::new("runc").arg("--version").output().context("runc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().next().and_then(|line| line.strip_prefix("runc version "));
    version.map(str::to_owned).ok_or_else(|| Error::Failed("runc does not say its version".into()))
}
