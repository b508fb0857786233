//! One sandbox, and where it is in its life.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use clawsec_core::Scope;
use clawsec_init::wire::{Spec, ToShim};
use clawsec_proto as pb;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::command::Commands;
use crate::create::Init;
use crate::error::{Error, Result};
use crate::io::Io;
use crate::secrets::Secrets;
use crate::shim::{self, Shim};

/// Where a sandbox is in its life.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    Created,
    Starting,
    Running { started_us: u64 },
    Ended { started_us: u64, ended_us: u64, exit: pb::ExitStatus, how: How },
}

/// Why a sandbox is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// The main command ended by itself.
    Exited,
    /// A kill, a stop or a failure.
    Killed,
}

/// What is known of a sandbox from its request.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) created_us: u64,
    pub(crate) publish: Vec<pb::PublishedPort>,
    pub(crate) policy: Mutex<(u64, String)>,
    /// Last part of the entry path of each subject that has one.
    pub(crate) entries: HashMap<String, String>,
    /// User and group of everything in it.
    pub(crate) owner: (u32, u32),
}

impl Facts {
    pub(crate) fn new(request: &pb::CreateSandboxRequest, publish: Vec<pb::PublishedPort>) -> Self {
        let tables = request.tables.as_ref();
        let policy = tables.map(|tables| (tables.epoch, tables.policy_hash.clone())).unwrap_or_default();
        let entry = |subject: &pb::Subject| {
            let (_, name) = subject.entry_path.rsplit_once('/')?;
            Some((subject.name.clone(), name.to_owned()))
        };
        Self {
            created_us: now_us(),
            publish,
            policy: Mutex::new(policy),
            entries: request.subjects.iter().filter_map(entry).collect(),
            owner: owner(&request.oci_config),
        }
    }
}

/// User and group of an OCI configuration; root, as runc has it, where it names none.
fn owner(oci_config: &[u8]) -> (u32, u32) {
    let config: serde_json::Value = serde_json::from_slice(oci_config).unwrap_or_default();
    let id = |name: &str| config["process"]["user"][name].as_u64().and_then(|id| u32::try_from(id).ok());
    (id("uid").unwrap_or(0), id("gid").unwrap_or(0))
}

/// One sandbox, from created to ended.
#[derive(Debug)]
pub struct Sandbox {
    pub(crate) scope: Scope,
    pub(crate) init: Init,
    pub(crate) io: Io,
    pub(crate) secrets: Option<Secrets>,
    /// Taken by the start.
    pub(crate) unstarted: Mutex<Option<(Shim, Spec)>>,
    /// Where signals for the main command go. Dropping it is the loader's death to the shim.
    pub(crate) to_shim: tokio::sync::Mutex<Option<OwnedWriteHalf>>,
    /// Ends, after the shim's end, with the status of the main command that the shim told.
    pub(crate) told: Mutex<Option<JoinHandle<Option<pb::ExitStatus>>>>,
    /// Why it is being killed; set once.
    pub(crate) killed: OnceLock<String>,
    pub(crate) facts: Facts,
    /// Commands beside the main one.
    pub(crate) commands: Arc<Commands>,
    pub(crate) phase: watch::Sender<Phase>,
}

impl Sandbox {
    pub(crate) fn new(
        scope: Scope,
        init: Init,
        io: Io,
        secrets: Option<Secrets>,
        shim: Shim,
        spec: Spec,
        facts: Facts,
    ) -> Self {
        Self {
            scope,
            init,
            io,
            secrets,
            unstarted: Mutex::new(Some((shim, spec))),
            to_shim: tokio::sync::Mutex::new(None),
            told: Mutex::new(None),
            killed: OnceLock::new(),
            facts,
            commands: Arc::default(),
            phase: watch::Sender::new(Phase::Created),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.scope.sandbox
    }

    /// Its subjects and their cgroups.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Host pid of the shim.
    pub fn init_pid(&self) -> u32 {
        self.init.pid
    }

    /// Standard input, output and error of the main command.
    pub fn io(&self) -> &Io {
        &self.io
    }

    /// Waits until it has ended and nothing of it is left.
    pub async fn ended(&self) {
        // The sender is in `self`, so it cannot be gone.
        let _ = self.phase.subscribe().wait_for(|phase| matches!(phase, Phase::Ended { .. })).await;
    }

    /// Sends a signal to the main command's process group.
    ///
    /// # Errors
    /// [`Error::Precondition`] when it is not running.
    pub async fn signal(&self, signal: i32) -> Result<()> {
        let mut to = self.to_shim.lock().await;
        let to = to.as_mut().ok_or_else(|| self.not_running())?;
        shim::send(to, &ToShim::Signal(signal)).await.map_err(|_| self.not_running())
    }

    pub(crate) fn not_running(&self) -> Error {
        Error::Precondition(format!("the sandbox {} is not running", self.name()))
    }

    /// One sentence, for whoever has something else running in it.
    pub(crate) fn why_it_ended(&self) -> String {
        match self.killed.get() {
            Some(reason) => format!("the sandbox {} was killed meanwhile: {reason}", self.name()),
            None => format!("the sandbox {} ended meanwhile, with its main command", self.name()),
        }
    }

    /// Writes or rotates secrets.
    ///
    /// # Errors
    /// [`Error::Precondition`] when it has ended, or has no secrets mount.
    pub fn put_secrets(&self, secrets: Vec<pb::Secret>) -> Result<()> {
        if self.killed.get().is_some() || matches!(*self.phase.borrow(), Phase::Ended { .. }) {
            return Err(Error::Precondition(format!("the sandbox {} has ended", self.name())));
        }
        let mount = self.secrets.as_ref();
        mount
            .ok_or_else(|| Error::Precondition(format!("the sandbox {} has no secrets mount", self.name())))?
            .put(secrets)
    }

    /// Empties every secret; returns how many.
    ///
    /// # Errors
    /// One could not be emptied.
    pub fn revoke_secrets(&self) -> Result<u32> {
        self.secrets.as_ref().map_or(Ok(0), Secrets::revoke)
    }

    /// Records that another policy holds now, for [`pb::SandboxInfo`].
    pub fn set_policy(&self, epoch: u64, policy_hash: &str) {
        *self.facts.policy.lock().unwrap_or_else(PoisonError::into_inner) = (epoch, policy_hash.to_owned());
    }

    /// Changes the phase if it is the expected one; says whether it was. An ended sandbox stays ended.
    pub(crate) fn advance(&self, expected: impl Fn(&Phase) -> bool, next: Phase) -> bool {
        self.phase.send_if_modified(|phase| {
            let advances = expected(phase);
            if advances {
                *phase = next.clone();
            }
            advances
        })
    }

    pub(crate) fn is_live(&self) -> bool {
        !matches!(*self.phase.borrow(), Phase::Ended { .. })
    }

    /// How it ended. The shim exits with 128 + signal for a main command that a signal ended, and with the same code for
    /// one that chose it; which of them it was is in what it told, so that goes first.
    pub(crate) fn conclude(
        &self,
        told: Option<pb::ExitStatus>,
        reaped: pb::ExitStatus,
    ) -> (u64, pb::ExitStatus, How) {
        let started_us = match *self.phase.borrow() {
            Phase::Running { started_us } => started_us,
            _ => 0,
        };
        let by_itself = told.is_some() && self.killed.get().is_none();
        (started_us, told.unwrap_or(reaped), if by_itself { How::Exited } else { How::Killed })
    }
}

/// Microseconds since the epoch.
pub(crate) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
