//! The sandboxes of this host: every call of the contract that is about one.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use clawsec_core::{EventSink, Without};
use clawsec_proto as pb;
use clawsec_sandbox::{Config, Error, Output, Sandbox, Sandboxes};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::broker::Broker;
use crate::exec;
use crate::gates::Gates;
use crate::input::{self, Target};
use crate::process;
use crate::spool::Spool;
use crate::streams::Answers;
use crate::tables::Tables;
use crate::validate;

/// How often the counter of failed kills is looked at. It has never been seen to move.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// What a host is opened with.
#[derive(Debug)]
pub struct Setup {
    /// Absolute and without symbolic links.
    pub runtime_dir: PathBuf,
    /// The static init shim.
    pub shim: PathBuf,
    /// Policy records.
    pub tables: Arc<Tables>,
    /// Who is asked.
    pub broker: Broker,
    /// Where events go.
    pub spool: Arc<Spool>,
    /// Mechanisms of the kernel that are left unused.
    pub without: Without,
}

/// All sandboxes and their gates.
pub struct Host {
    sandboxes: Sandboxes,
    gates: Arc<Gates>,
    events: Arc<dyn EventSink>,
    instance: String,
    capabilities: RwLock<Vec<pb::Capability>>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Host").field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// The status for an error of the sandbox's life.
pub(crate) fn status(error: &Error) -> Status {
    let sentence = error.to_string();
    match error {
        Error::Invalid(_) => Status::invalid_argument(sentence),
        Error::Exists(_) => Status::already_exists(sentence),
        Error::NotFound(_) => Status::not_found(sentence),
        Error::Precondition(_) => Status::failed_precondition(sentence),
        Error::Exhausted(_) => Status::resource_exhausted(sentence),
        Error::Failed(_) => Status::internal(sentence),
    }
}

impl Host {
    /// Loads the gates, finds out what this host can enforce, and removes what an earlier loader left.
    ///
    /// # Errors
    /// A sentence: a gate could not be loaded, or the runtime directory not be used.
    pub async fn open(setup: Setup) -> Result<Arc<Self>, String> {
        let Setup { runtime_dir, shim, tables, broker, spool, without } = setup;
        let instance = process::instance(&runtime_dir);
        let gates = Gates::load(&instance, &runtime_dir, tables, broker, spool, without)?;
        let events = gates.events();
        let gates = Arc::new(gates);
        let config = Config { runtime_dir, instance: instance.clone(), shim, protected: Vec::new(), without };
        let opened = Sandboxes::open(config, Arc::clone(&gates) as _).await;
        let (sandboxes, cleaned) = opened.map_err(|error| error.to_string())?;
        for sentence in cleaned {
            tracing::warn!("an earlier loader left something: {sentence}");
            events.emit(sandbox_event("", pb::SandboxState::Killed, None, sentence));
        }
        let host = Self { sandboxes, gates, events, instance, capabilities: RwLock::default() };
        host.probe().await;
        let host = Arc::new(host);
        tokio::spawn(Arc::clone(&host).watch_verification());
        Ok(host)
    }

    /// An image that nobody approved and that the kernel could not kill runs free: then nothing may run.
    async fn watch_verification(self: Arc<Self>) {
        let mut seen = self.gates.unkilled();
        loop {
            tokio::time::sleep(WATCH_EVERY).await;
            let unkilled = self.gates.unkilled();
            if unkilled > seen {
                tracing::error!(unkilled, "an image without approval could not be killed: all sandboxes are");
                self.kill_all("an image without approval could not be killed").await;
                seen = unkilled;
            }
        }
    }

    /// What this host could enforce when it was tried last.
    pub fn capabilities(&self) -> Vec<pb::Capability> {
        self.capabilities.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tries every mechanism again.
    pub async fn probe(&self) -> Vec<pb::Capability> {
        let gates = Arc::clone(&self.gates);
        let instance = self.instance.clone();
        let tried = tokio::task::spawn_blocking(move || {
            let mut capabilities = clawsec_sandbox::probe(&instance, gates.without());
            capabilities.extend(gates.probe());
            capabilities
        });
        let capabilities = tried.await.unwrap_or_else(|error| {
            tracing::error!(%error, "the probes failed");
            Vec::new()
        });
        for missing in capabilities.iter().filter(|it| it.state() != pb::CapabilityState::Present) {
            let pb::Capability { name, detail, required, .. } = missing;
            tracing::warn!(name, required, "a mechanism is missing: {detail}");
        }
        self.capabilities.write().unwrap_or_else(PoisonError::into_inner).clone_from(&capabilities);
        capabilities
    }

    /// Makes a sandbox.
    pub async fn create(
        self: &Arc<Self>,
        request: pb::CreateSandboxRequest,
    ) -> Result<pb::CreateSandboxResponse, Status> {
        self.require_everything()?;
        let name = request.name.clone();
        let (info, cleaned) = self.sandboxes.create(request).await.map_err(|error| {
            tracing::warn!(sandbox = name, %error, "a sandbox was not made");
            status(&error)
        })?;
        tracing::info!(sandbox = name, pid = info.init_pid, "created");
        let detail = "it was created; nothing of it runs yet".to_owned();
        self.events.emit(sandbox_event(&name, pb::SandboxState::Created, None, detail));
        if let Ok(sandbox) = self.sandboxes.get(&name) {
            tokio::spawn(Arc::clone(self).report_end(sandbox));
        }
        Ok(pb::CreateSandboxResponse { sandbox: Some(info), cleaned })
    }

    /// A mechanism that every sandbox needs must not turn out missing half-way.
    fn require_everything(&self) -> Result<(), Status> {
        let capabilities = self.capabilities();
        let missing =
            capabilities.iter().find(|it| it.required && it.state() != pb::CapabilityState::Present);
        match missing {
            None if !capabilities.is_empty() => Ok(()),
            None => {
                Err(Status::failed_precondition("this host could not be tried; the loader's log says why"))
            }
            Some(pb::Capability { name, detail, remedy, .. }) => Err(Status::failed_precondition(format!(
                "no sandbox can be made on this host: {name} is missing ({detail}); {remedy}"
            ))),
        }
    }

    async fn report_end(self: Arc<Self>, sandbox: Arc<Sandbox>) {
        sandbox.ended().await;
        // What its processes did comes before its end.
        let gates = Arc::clone(&self.gates);
        if let Err(error) = tokio::task::spawn_blocking(move || gates.settle()).await {
            tracing::error!(%error, "the exec events were not waited for");
        }
        let Ok(info) = self.sandboxes.info(sandbox.name()) else { return };
        let exit = info.exit.unwrap_or_default();
        let how = match info.state() {
            pb::SandboxState::Exited => "its main command ended by itself",
            _ => "it was killed, stopped, or failed",
        };
        let detail = match exit.signal {
            0 => format!("{how}, with exit code {}", exit.code),
            signal => format!("{how}, by signal {signal}"),
        };
        tracing::info!(sandbox = sandbox.name(), code = exit.code, signal = exit.signal, "{how}");
        let event = sandbox_event(sandbox.name(), info.state(), info.exit, detail);
        self.events.emit(pb::Event { policy_hash: info.policy_hash, ..event });
    }

    /// Lets the main command run.
    pub async fn start(&self, name: &str) -> Result<pb::SandboxInfo, Status> {
        let info = self.sandboxes.start(name).await.map_err(|error| {
            tracing::warn!(sandbox = name, %error, "a sandbox did not start");
            status(&error)
        })?;
        let detail = "its main command runs".to_owned();
        self.events.emit(sandbox_event(name, pb::SandboxState::Running, None, detail));
        Ok(info)
    }

    /// SIGTERM, and after `grace_ms` a kill.
    pub async fn stop(&self, name: &str, grace_ms: u32) -> Result<pb::KillReport, Status> {
        let grace = Duration::from_millis(grace_ms.into());
        let report = self.sandboxes.stop(name, grace).await.map_err(|error| status(&error))?;
        Ok(pb::KillReport { sandboxes: vec![report] })
    }

    /// Kills one sandbox.
    pub async fn kill(&self, name: &str, reason: &str) -> Result<pb::KillReport, Status> {
        let report = self.sandboxes.kill(name, reason).await.map_err(|error| status(&error))?;
        if report.survivors > 0 {
            tracing::error!(sandbox = name, survivors = report.survivors, "processes survived the kill");
        }
        Ok(pb::KillReport { sandboxes: vec![report] })
    }

    /// Kills every sandbox.
    pub async fn kill_all(&self, reason: &str) -> pb::KillReport {
        pb::KillReport { sandboxes: self.sandboxes.kill_all(reason).await }
    }

    /// Facts about live sandboxes and those that ended.
    pub fn list(&self) -> Vec<pb::SandboxInfo> {
        self.sandboxes.list()
    }

    /// Waits for the end of a sandbox.
    pub async fn wait(&self, name: &str) -> Result<pb::SandboxInfo, Status> {
        self.sandboxes.wait(name).await.map_err(|error| status(&error))
    }

    /// Attaches to the main command's streams.
    pub fn attach(
        self: &Arc<Self>,
        first: pb::AttachInput,
        inputs: Streaming<pb::AttachInput>,
    ) -> Result<Answers<pb::AttachOutput>, Status> {
        let sandbox = self.sandboxes.get(&first.name).map_err(|error| status(&error))?;
        let mut attachment = sandbox.io().attach().map_err(|error| status(&error))?;
        let (sender, receiver) = mpsc::channel(16);
        let host = Arc::clone(self);
        let attached = Arc::clone(&sandbox);
        tokio::spawn(async move {
            let send = async |output| sender.send(Ok(pb::AttachOutput { output: Some(output) })).await;
            if send(pb::attach_output::Output::Attached(true)).await.is_err() {
                return;
            }
            loop {
                // Whoever left makes room for the next one at once, also where nothing more is written.
                let output = tokio::select! {
                    output = attachment.next() => output,
                    () = sender.closed() => return,
                };
                let output = match output {
                    Some(Output::Stdout(bytes)) => pb::attach_output::Output::Stdout(bytes),
                    Some(Output::Stderr(bytes)) => pb::attach_output::Output::Stderr(bytes),
                    None => break,
                };
                if send(output).await.is_err() {
                    return;
                }
            }
            attached.ended().await;
            let exit = host.sandboxes.info(attached.name()).ok().and_then(|info| info.exit);
            // Whoever left does not need to know.
            let _ = send(pb::attach_output::Output::Exit(exit.unwrap_or_default())).await;
        });
        // Whoever detaches leaves the input open for the next attachment.
        tokio::spawn(input::take(Target::Main(sandbox), first, inputs));
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    /// Runs one more command in a sandbox.
    pub async fn exec(
        &self,
        first: pb::AttachInput,
        inputs: Streaming<pb::AttachInput>,
    ) -> Result<Answers<pb::AttachOutput>, Status> {
        let sandbox = self.sandboxes.get(&first.name).map_err(|error| status(&error))?;
        exec::serve(sandbox, first, inputs).await
    }

    /// Puts another policy in force; returns its epoch.
    pub async fn apply(&self, name: &str, tables: pb::PolicyTables) -> Result<u64, Status> {
        let sandbox = self.sandboxes.get(name).map_err(|error| status(&error))?;
        let subjects: Vec<_> = sandbox.scope().subjects.iter().map(|subject| subject.name.clone()).collect();
        validate::policy_tables(&tables, &subjects)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let gates = Arc::clone(&self.gates);
        let owner = name.to_owned();
        // Expressions are compiled.
        let applied =
            tokio::task::spawn_blocking(move || gates.apply(&owner, &tables).map(|()| tables)).await;
        let tables = applied
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|refusal| refusal.status())?;
        sandbox.set_policy(tables.epoch, &tables.policy_hash);
        tracing::info!(
            sandbox = name,
            epoch = tables.epoch,
            hash = tables.policy_hash,
            "another policy is in force"
        );
        Ok(tables.epoch)
    }

    /// Writes or rotates secrets.
    pub async fn put_secrets(&self, name: &str, secrets: Vec<pb::Secret>) -> Result<(), Status> {
        let sandbox = self.sandboxes.get(name).map_err(|error| status(&error))?;
        let written = tokio::task::spawn_blocking(move || sandbox.put_secrets(secrets)).await;
        written.map_err(|error| Status::internal(error.to_string()))?.map_err(|error| status(&error))
    }

    /// Empties every secret; returns how many.
    pub async fn revoke_secrets(&self, name: &str) -> Result<u32, Status> {
        let sandbox = self.sandboxes.get(name).map_err(|error| status(&error))?;
        let emptied = tokio::task::spawn_blocking(move || sandbox.revoke_secrets()).await;
        emptied.map_err(|error| Status::internal(error.to_string()))?.map_err(|error| status(&error))
    }

    /// Kills everything and takes the gates down. Returns how many processes survived.
    pub async fn shut_down(&self) -> u32 {
        let reports = self.sandboxes.kill_all("the loader was stopped").await;
        let survivors = reports.iter().map(|report| report.survivors).sum();
        // An end is told before its cgroups' empty parents are removed; the process must not be faster.
        self.sandboxes.cgroups().remove_parents();
        if survivors == 0 {
            self.gates.unload();
        } else {
            tracing::error!(survivors, "the verification of execs stays in the kernel for what survived");
        }
        survivors
    }
}

fn sandbox_event(
    name: &str,
    state: pb::SandboxState,
    exit: Option<pb::ExitStatus>,
    detail: String,
) -> pb::Event {
    pb::Event {
        sandbox: name.to_owned(),
        kind: Some(pb::event::Kind::SandboxEvent(pb::SandboxEvent { state: state.into(), exit, detail })),
        ..Default::default()
    }
}
