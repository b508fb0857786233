//! An exec that is allowed by its file alone, as most are: the shortest way, and what is told of it when nobody waits any more.

use std::sync::Arc;

use clawsec_core::{ask, pb};

use crate::bpf::lsm::Chain;
use crate::gate::Sandbox;
use crate::handler::{ExecHandler, Request};
use crate::image::{Call, Image};
use crate::lineage::{Lineage, Record};
use crate::pending::Decided;
use crate::question::show_digests;
use crate::tracee::Task;
use crate::{facts, handler};

/// What was decided about an exec, until it is told.
#[derive(Debug)]
pub(crate) enum Told {
    /// Put together already.
    Whole(Box<Decided>),
    /// To be put together.
    Parts(Box<Parts>),
}

impl Told {
    /// The whole of it.
    pub fn whole(self, lineage: &Lineage) -> Decided {
        match self {
            Self::Whole(decided) => *decided,
            Self::Parts(parts) => parts.whole(lineage),
        }
    }
}

/// What there was to know when it was decided.
#[derive(Debug)]
pub(crate) struct Parts {
    sandbox: Arc<Sandbox>,
    subject: String,
    task: Task,
    call: Call,
    // Also keeps the files open.
    image: Image,
    exec: u64,
    parent: u64,
    caller: Option<Record>,
    decision: pb::Decision,
    latency_us: u64,
}

impl Parts {
    fn whole(self, lineage: &Lineage) -> Decided {
        let mut action = facts::action(&self.call, &self.image, lineage.id(self.exec));
        let digests = &self.sandbox.digests;
        let known: Option<Vec<_>> = self.image.files.iter().map(|file| digests.known(file)).collect();
        if let Some(known) = known {
            show_digests(&mut action, known);
        }
        let process = facts::process(lineage, &self.task, self.parent, self.caller.as_ref());
        handler::decided(&self.sandbox.scope, &self.subject, action, process, &self.decision, self.latency_us)
    }
}

impl ExecHandler {
    /// Lets it happen.
    pub(crate) fn allow_at_once(&self, mut request: Request, decision: pb::Decision) {
        let mut approval = self.approval(&request);
        if let Err(message) = self.bind(&mut approval, &request, &decision) {
            self.complete(&mut request);
            self.deny(request, &ask::denial(decision.question_id, &message));
            return;
        }
        let Request { notification, task, subject, image, exec, parent, call, .. } = request;
        let lineage = &self.shared.lineage;
        let caller = lineage.record(parent);
        let executable = String::from_utf8_lossy(&image.program().path);
        lineage.insert(exec, parent, &executable, || self.shared.live_images());
        let chain = Chain::new(exec, image.by_kernel().map(|file| &file.id));
        let tid = task.tid;
        let question = decision.question_id;
        let parts = Parts {
            sandbox: Arc::clone(&self.sandbox),
            subject: subject.name,
            task,
            call,
            image,
            exec,
            parent,
            caller,
            decision,
            latency_us: notification.received.elapsed().as_micros() as u64,
        };
        // Before the answer: it is told with the exec.
        match self.shared.approve(tid, approval, &chain, Vec::new(), Some(Told::Parts(Box::new(parts)))) {
            Ok(()) => {
                if notification.respond_continue().is_err() {
                    self.shared.revoke(tid, exec);
                }
            }
            Err((error, told)) => {
                let denial = ask::denial(question, &error.to_string());
                if let Some(Told::Parts(parts)) = told {
                    self.deny_parts(notification, *parts, &denial);
                }
            }
        }
    }

    fn deny_parts(&self, notification: crate::notify::Notification, mut parts: Parts, denial: &pb::Decision) {
        parts.task.open_pidfd();
        let lineage = &self.shared.lineage;
        let action = facts::action(&parts.call, &parts.image, lineage.id(parts.exec));
        let process = facts::process(lineage, &parts.task, parts.parent, parts.caller.as_ref());
        self.finish_denial(notification, &parts.task, &parts.subject, action, process, denial);
    }
}
