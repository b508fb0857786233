//! Asks about an exec, and does what the answer says.

use clawsec_core::{Inquiry, Outcome, ask, pb};
use nix::errno::Errno;

use crate::handler::{Carried, ExecHandler, Request, blocking};
use crate::resolve::Failure;
use crate::{facts, wait};

impl ExecHandler {
    /// Asks about an exec, with all facts that a policy may need.
    pub(crate) fn ask(&self, mut request: Request) {
        // Only for a question: nothing that is cached depends on them.
        let envp = request.notification.envp();
        let options = &request.image.variables;
        match facts::complete(&mut request.action, &mut request.process, request.task.tid, envp, options) {
            Ok(environment) => {
                request.environment = environment.map(|block| self.hashed(&block));
            }
            Err(Failure::Errno(Errno::ESRCH)) => return,
            Err(Failure::Errno(errno)) => {
                let _ = request.notification.respond_errno(errno as i32);
                return;
            }
            Err(Failure::Refused(message)) => return self.deny_itself(request, &message),
        }
        self.shared.lineage.describe_ancestors(request.parent, &mut request.process);
        if self.lacks_digests(&request) && !self.show_known_digests(&mut request) {
            let this = self.clone();
            self.shared.handle.spawn(async move {
                if let Some(request) = this.read_digests(request).await {
                    this.put(request);
                }
            });
            return;
        }
        self.put(request);
    }

    fn put(&self, request: Request) {
        let question = pb::Question {
            sandbox: self.sandbox.scope.sandbox.clone(),
            subject: request.subject.name.clone(),
            process: Some(request.process.clone()),
            action: Some(pb::question::Action::Exec(request.action.clone())),
            ..Default::default()
        };
        let inquiry = self.shared.asker.ask(question);
        self.shared.handle.spawn(self.clone().see_through(request, inquiry));
    }

    async fn see_through(self, request: Request, mut inquiry: Inquiry) {
        let gone = request.task.pidfd.as_ref().and_then(|pidfd| pidfd.try_clone().ok());
        let outcome = tokio::select! {
            outcome = inquiry.next() => outcome,
            () = wait::readable(gone) => {
                inquiry.gone("the process that wanted to exec is dead");
                return;
            }
        };
        if self.lacks_digests(&request) {
            // The policy that looks at them came while the question was open.
            inquiry.gone("the policy now looks at the content, and it is asked about again with that");
            if let Some(request) = self.read_digests(request).await {
                self.put(request);
            }
            return;
        }
        let this = self.clone();
        match outcome {
            Outcome::Allow(decision) => {
                this.remember(&request, &decision);
                let carried = if this.must_stop(&request, &decision) {
                    Some(this.allow_stopped(request, decision).await)
                } else {
                    blocking(move || this.allow(request, &decision)).await
                };
                if matches!(carried, Some(Carried::Gone)) {
                    inquiry.gone("the process that wanted to exec is dead");
                }
            }
            Outcome::Deny(decision) => {
                blocking(move || {
                    this.remember(&request, &decision);
                    this.deny(request, &decision);
                })
                .await;
            }
            Outcome::Hold(decision) => this.hold(request, decision, inquiry).await,
        }
    }

    // Refuses what cannot be asked about.
    fn deny_itself(&self, request: Request, message: &str) {
        self.deny(request, &pb::Decision { layer: "gate".into(), ..ask::denial(0, message) });
    }

    fn lacks_digests(&self, request: &Request) -> bool {
        let epoch = self.shared.asker.epoch(&self.sandbox.scope.sandbox);
        request.action.executable_sha256.is_empty() && self.sandbox.policy().needs_digests(epoch)
    }

    /// Shows the contents that are known. False: not all are.
    pub(crate) fn show_known_digests(&self, request: &mut Request) -> bool {
        let digests = &self.sandbox.digests;
        let known: Option<Vec<_>> = request.image.files.iter().map(|file| digests.known(file)).collect();
        known.is_some_and(|known| {
            show_digests(&mut request.action, known);
            true
        })
    }

    // `None`: it was refused, or there is nobody left to answer.
    async fn read_digests(&self, mut request: Request) -> Option<Request> {
        let gone = request.task.pidfd.as_ref().and_then(|pidfd| pidfd.try_clone().ok());
        let turn = tokio::select! {
            turn = self.sandbox.digests.turn() => turn?,
            () = wait::readable(gone) => return None,
        };
        let this = self.clone();
        blocking(move || {
            let digests = &this.sandbox.digests;
            let read: Result<Vec<_>, _> = request.image.files.iter().map(|file| digests.read(file)).collect();
            drop(turn);
            match read {
                Ok(read) => {
                    show_digests(&mut request.action, read);
                    Some(request)
                }
                Err(message) => {
                    this.deny_itself(request, &message);
                    None
                }
            }
        })
        .await
        .flatten()
    }
}

// In the order of `Image::files`: the scripts, the program of a loader that is called by hand, and at last the image.
fn show_digests(action: &mut pb::ExecAction, mut digests: Vec<String>) {
    if !action.loader.is_empty() {
        action.loader_sha256 = digests.pop().unwrap_or_default();
    }
    action.executable_sha256 = digests.pop().unwrap_or_default();
    let mut scripts = digests.into_iter();
    action.script_sha256 = scripts.next().unwrap_or_default();
    action.nested_sha256 = scripts.collect();
}
