//! An image that stands at its exec event, whoever stopped it: the tracer, for one that runs on untraced, or a thread of
//! its own, for one that is followed until it has read its script.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use clawsec_core::{ask, pb};
use tokio::sync::oneshot;

use crate::follow::{self, Followed, OnKilled};
use crate::handler::{ExecHandler, Request, blocking};
use crate::hold::{SeizeError, Stopped, Tracer};
use crate::{reason, sys};

enum Holder {
    Tracer(Arc<Tracer>, u64),
    Thread(Followed),
}

/// A seized task.
pub(crate) struct Grip {
    holder: Holder,
}

/// What becomes of a seized task: how its exec came out, and its death while it stands.
pub(crate) struct Ways {
    pub stopped: oneshot::Receiver<Stopped>,
    /// With the reason.
    pub gone: oneshot::Receiver<String>,
}

impl Grip {
    /// Its execve was answered, with whatever.
    pub fn continued(&self) {
        match &self.holder {
            Holder::Tracer(tracer, key) => tracer.continued(*key),
            Holder::Thread(followed) => followed.continued(),
        }
    }

    /// A descriptor of a held image's process. `None`: it is gone.
    pub async fn pidfd(&self) -> Option<OwnedFd> {
        match &self.holder {
            Holder::Tracer(tracer, key) => tracer.pidfd(*key).await,
            Holder::Thread(followed) => followed.pidfd().await,
        }
    }

    /// Lets a held image run. False: it is gone.
    pub async fn resume(&self) -> bool {
        match &self.holder {
            Holder::Tracer(tracer, key) => tracer.resume(*key).await,
            Holder::Thread(followed) => followed.resume().await,
        }
    }

    /// Kills a held image. False: it was gone already.
    pub async fn kill(&self) -> bool {
        match &self.holder {
            Holder::Tracer(tracer, key) => tracer.kill(*key).await,
            Holder::Thread(followed) => followed.kill().await,
        }
    }
}

impl ExecHandler {
    /// Seizes the caller, with the copy of its script where the decision goes by it. `None`: the gate ends.
    pub(crate) async fn seize(
        &self,
        request: Request,
        decision: &pb::Decision,
    ) -> Option<(Request, Result<(Grip, Ways), SeizeError>)> {
        let (tid, pid) = (request.task.tid, request.task.pid);
        let by_person = decision.verdict() == pb::Verdict::Hold;
        let on_killed = self.on_killed(&request, decision);
        let (this, decision) = (self.clone(), decision.clone());
        let (request, script) = blocking(move || {
            let script = this.needs_script(&request, &decision).then(|| this.hand_over(&request, &decision));
            (request, script)
        })
        .await?;
        let seized = match script {
            None => self.tracer.seize(tid, pid).await.map(|seized| {
                let holder = Holder::Tracer(Arc::clone(&self.tracer), seized.key);
                (Grip { holder }, Ways { stopped: seized.stopped, gone: seized.gone })
            }),
            Some(Err(message)) => Err(SeizeError::Refused(message)),
            Some(Ok(script)) => {
                let shared = Arc::clone(&self.shared);
                follow::seize(tid, script, by_person, move |tid| shared.revoke_any(tid), on_killed)
                    .await
                    .map(|(followed, ways)| (Grip { holder: Holder::Thread(followed) }, ways))
            }
        };
        Some((request, seized))
    }

    // Tells of an interpreter that is about to be killed: its exec was allowed, and what it did then was not.
    fn on_killed(&self, request: &Request, decision: &pb::Decision) -> OnKilled {
        let this = self.clone();
        let subject = request.subject.name.clone();
        let (action, process) = (request.action.clone(), request.process.clone());
        let (question, hold_id) = (decision.question_id, decision.hold_id.clone());
        let received = request.notification.received;
        Box::new(move |pid, why| {
            let message = format!("its interpreter was killed: {why}");
            let denial = pb::Decision { layer: "gate".into(), hold_id, ..ask::denial(question, &message) };
            if let Ok(pidfd) = sys::pidfd_open_process(pid) {
                reason::tell(pidfd.as_fd(), &this.sandbox.budget, &this.line(&action, &denial));
            }
            this.report(&subject, action, process, &denial, received.elapsed().as_micros() as u64);
        })
    }
}
