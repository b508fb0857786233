//! The `Loader` service: each call is checked here and carried out by the part it is about.

use std::sync::Arc;

use clawsec_proto as pb;
use clawsec_proto::loader_server::Loader;
use tokio::runtime::Handle;
use tonic::{Request, Response, Status, Streaming};

use crate::broker::Broker;
use crate::host::Host;
use crate::process;
use crate::spool::Spool;
use crate::streams::{self, Answers};
use crate::validate::{self, Invalid};

/// Serves the contract.
#[derive(Debug)]
pub struct Service {
    /// Who is asked.
    pub broker: Broker,
    /// Where events wait.
    pub spool: Arc<Spool>,
    /// Sandboxes and gates.
    pub host: Arc<Host>,
    /// Of this run.
    pub boot_id: String,
    /// What `--without` names.
    pub without: Vec<String>,
    /// Where calls are carried out that are more than a few words: not where the supervisor is talked to.
    pub work: Handle,
}

type Answer<T> = Result<Response<T>, Status>;

fn invalid(error: Invalid) -> Status {
    Status::invalid_argument(error.to_string())
}

impl Service {
    /// Carries a call on when its caller goes away: half a creation or half a kill must not be what is left.
    async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Answer<T> {
        match self.work.spawn(work).await {
            Ok(result) => result.map(Response::new),
            Err(error) => {
                tracing::error!(%error, "a call failed inside the loader");
                Err(Status::internal("the call failed inside the loader; its log says more"))
            }
        }
    }
}

#[tonic::async_trait]
impl Loader for Service {
    type AttachStream = Answers<pb::AttachOutput>;
    type ExecStream = Answers<pb::AttachOutput>;
    type DecideStream = Answers<pb::LoaderMessage>;
    type EventsStream = Answers<pb::EventBatch>;

    async fn hello(&self, request: Request<pb::HelloRequest>) -> Answer<pb::HelloResponse> {
        let supervisor_version = request.into_inner().supervisor_version;
        tracing::info!(supervisor_version, "a supervisor said hello");
        Ok(Response::new(pb::HelloResponse {
            loader_version: env!("CARGO_PKG_VERSION").into(),
            loader_boot_id: self.boot_id.clone(),
            kernel_release: process::kernel_release(),
            capabilities: self.host.capabilities(),
            without: self.without.clone(),
        }))
    }

    async fn probe(&self, _: Request<pb::ProbeRequest>) -> Answer<pb::ProbeResponse> {
        let host = Arc::clone(&self.host);
        let without = self.without.clone();
        self.to_its_end(async move { Ok(pb::ProbeResponse { capabilities: host.probe().await, without }) })
            .await
    }

    async fn create_sandbox(
        &self,
        request: Request<pb::CreateSandboxRequest>,
    ) -> Answer<pb::CreateSandboxResponse> {
        let request = request.into_inner();
        validate::create(&request).map_err(invalid)?;
        let host = Arc::clone(&self.host);
        self.to_its_end(async move { host.create(request).await }).await
    }

    async fn start_sandbox(
        &self,
        request: Request<pb::StartSandboxRequest>,
    ) -> Answer<pb::StartSandboxResponse> {
        let name = request.into_inner().name;
        let host = Arc::clone(&self.host);
        self.to_its_end(async move {
            let sandbox = host.start(&name).await?;
            Ok(pb::StartSandboxResponse { sandbox: Some(sandbox) })
        })
        .await
    }

    async fn stop_sandbox(&self, request: Request<pb::StopSandboxRequest>) -> Answer<pb::KillReport> {
        let request = request.into_inner();
        let host = Arc::clone(&self.host);
        self.to_its_end(async move { host.stop(&request.name, request.grace_ms).await }).await
    }

    async fn kill_sandbox(&self, request: Request<pb::KillSandboxRequest>) -> Answer<pb::KillReport> {
        let request = request.into_inner();
        let host = Arc::clone(&self.host);
        self.to_its_end(async move {
            if request.name.is_empty() {
                Ok(host.kill_all(&request.reason).await)
            } else {
                host.kill(&request.name, &request.reason).await
            }
        })
        .await
    }

    async fn list_sandboxes(
        &self,
        _: Request<pb::ListSandboxesRequest>,
    ) -> Answer<pb::ListSandboxesResponse> {
        Ok(Response::new(pb::ListSandboxesResponse { sandboxes: self.host.list() }))
    }

    async fn wait_sandbox(
        &self,
        request: Request<pb::WaitSandboxRequest>,
    ) -> Answer<pb::WaitSandboxResponse> {
        let sandbox = self.host.wait(&request.into_inner().name).await?;
        Ok(Response::new(pb::WaitSandboxResponse { sandbox: Some(sandbox) }))
    }

    async fn attach(&self, request: Request<Streaming<pb::AttachInput>>) -> Answer<Self::AttachStream> {
        let mut inputs = request.into_inner();
        let Some(first) = inputs.message().await? else {
            return Err(Status::invalid_argument("the first message of an attachment names the sandbox"));
        };
        let _work = self.work.enter();
        Ok(Response::new(self.host.attach(first, inputs)?))
    }

    async fn exec(&self, request: Request<Streaming<pb::AttachInput>>) -> Answer<Self::ExecStream> {
        let mut inputs = request.into_inner();
        let Some(first) = inputs.message().await? else {
            return Err(Status::invalid_argument("the first message of a command names the sandbox"));
        };
        let host = Arc::clone(&self.host);
        self.to_its_end(async move { host.exec(first, inputs).await }).await
    }

    async fn apply_policy(
        &self,
        request: Request<pb::ApplyPolicyRequest>,
    ) -> Answer<pb::ApplyPolicyResponse> {
        let request = request.into_inner();
        let Some(tables) = request.tables else {
            return Err(Status::invalid_argument("the policy tables are missing"));
        };
        let host = Arc::clone(&self.host);
        self.to_its_end(async move {
            let epoch = host.apply(&request.name, tables).await?;
            Ok(pb::ApplyPolicyResponse { epoch })
        })
        .await
    }

    async fn decide(&self, request: Request<Streaming<pb::SupervisorMessage>>) -> Answer<Self::DecideStream> {
        Ok(Response::new(streams::decide(&self.broker, request.into_inner())))
    }

    async fn events(&self, request: Request<Streaming<pb::EventAck>>) -> Answer<Self::EventsStream> {
        Ok(Response::new(streams::events(&self.spool, request.into_inner(), &self.work)))
    }

    async fn put_secrets(&self, request: Request<pb::PutSecretsRequest>) -> Answer<pb::PutSecretsResponse> {
        let request = request.into_inner();
        validate::secrets(&request.secrets).map_err(invalid)?;
        let host = Arc::clone(&self.host);
        self.to_its_end(async move {
            host.put_secrets(&request.name, request.secrets).await?;
            Ok(pb::PutSecretsResponse {})
        })
        .await
    }

    async fn revoke_secrets(
        &self,
        request: Request<pb::RevokeSecretsRequest>,
    ) -> Answer<pb::RevokeSecretsResponse> {
        let name = request.into_inner().name;
        let host = Arc::clone(&self.host);
        self.to_its_end(async move {
            let emptied = host.revoke_secrets(&name).await?;
            Ok(pb::RevokeSecretsResponse { emptied })
        })
        .await
    }
}
