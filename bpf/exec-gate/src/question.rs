//! Asks about an exec, and does what the answer says.

use std::time::Duration;

use clawsec_core::{Inquiry, Outcome, ask, pb};
use nix::errno::Errno;

use tokio::sync::mpsc::UnboundedReceiver;

use crate::again;
use crate::asking::Unanswered;
use crate::handler::{Carried, ExecHandler, Request, blocking};
use crate::resolve::Failure;
use crate::{facts, wait};

const DEAD: &str = "the process that wanted to exec is dead";
const NOT_AGAIN: &str = "the call was interrupted by a signal, and not made again";
const ANOTHER: &str = "the call was interrupted by a signal, and the process made another one";

/// How long the thread that received a call waits itself for the answer. Most answers are computed within one
/// millisecond, and each change of threads costs a part of that; a person's answer is waited for by a task.
const SOON: Duration = Duration::from_millis(4);

// A question that was put.
struct Asked {
    request: Request,
    inquiry: Inquiry,
    // Gives the call again, when it was interrupted.
    calls: UnboundedReceiver<Box<Request>>,
    // Until the first answer, which may be a hold.
    unanswered: Unanswered,
}

impl ExecHandler {
    /// Asks about an exec, with all facts that a policy may need. For the thread that received the call.
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
        request.action.context_hash = facts::context_hash(
            &request.image.files,
            request.cwd.as_ref(),
            request.environment,
            (request.task.tid, request.parent),
        );
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
        self.put_and_wait(request);
    }

    // Puts the question, and carries a final answer out on this thread if it comes soon.
    fn put_and_wait(&self, request: Request) {
        let Some(mut asked) = self.question(request) else { return };
        // A call that can be interrupted is looked after until it is known to have been answered.
        let waits = if self.shared.interruptible { None } else { asked.request.notification.wait_here() };
        let outcome = waits.and_then(|_waits| asked.inquiry.blocking_next_within(SOON));
        match outcome {
            Some(Outcome::Allow(decision)) if !self.must_stop(&asked.request, &decision) => {
                self.carry_out_here(asked, decision, true);
            }
            Some(Outcome::Deny(decision)) => self.carry_out_here(asked, decision, false),
            outcome => {
                drop(self.shared.handle.spawn(self.clone().see_through(asked, outcome)));
                self.sandbox.asking.pause();
            }
        }
    }

    // On a thread that may block.
    fn carry_out_here(&self, asked: Asked, decision: pb::Decision, allowed: bool) {
        if self.lacks_digests(&asked.request) {
            let outcome = if allowed { Outcome::Allow(decision) } else { Outcome::Deny(decision) };
            self.shared.handle.spawn(self.clone().see_through(asked, Some(outcome)));
            return;
        }
        let Asked { request, .. } = asked;
        self.remember(&request, &decision);
        match allowed {
            true => drop(self.allow(request, &decision)),
            false => drop(self.deny(request, &decision)),
        }
    }

    fn put(&self, request: Request) {
        let Some(asked) = self.question(request) else { return };
        self.shared.handle.spawn(self.clone().see_through(asked, None));
    }

    // Puts the question. `None`: there is nobody to ask for, or the same call was asked about.
    fn question(&self, request: Request) -> Option<Asked> {
        if !request.notification.is_valid() {
            return None;
        }
        let (request, calls) = self.sandbox.calls.meet(request)?;
        let question = pb::Question {
            sandbox: self.sandbox.scope.sandbox.clone(),
            subject: request.subject.name.clone(),
            process: Some(request.process.clone()),
            action: Some(pb::question::Action::Exec(request.action.clone())),
            ..Default::default()
        };
        let unanswered = self.sandbox.asking.begin();
        let inquiry = self.shared.asker.ask(question);
        Some(Asked { request, inquiry, calls, unanswered })
    }

    // `answer`: that came already.
    async fn see_through(self, asked: Asked, answer: Option<Outcome>) {
        let Asked { mut request, mut inquiry, mut calls, unanswered } = asked;
        let (exec, action) = (request.exec, request.action.clone());
        let outcome = loop {
            if let Some(answer) = answer {
                break answer;
            }
            let gone = request.caller();
            tokio::select! {
                outcome = inquiry.next() => break outcome,
                () = wait::readable(gone) => return inquiry.gone(DEAD),
                newer = calls.recv() => match newer {
                    Some(newer) => request = request.or_newer(*newer, exec, &action),
                    None => return inquiry.gone(ANOTHER),
                },
            }
        };
        drop(unanswered);
        if self.lacks_digests(&request) {
            // The policy that looks at them came while the question was open.
            inquiry.gone("the policy now looks at the content, and it is asked about again with that");
            drop(calls);
            if let Some(request) = self.read_digests(request).await {
                self.put(request);
            }
            return;
        }
        if let Outcome::Allow(decision) | Outcome::Deny(decision) = &outcome {
            self.remember(&request, decision);
        }
        // An answer was taken. It is not certain that it reached the call (see `again`), but nothing more is owed.
        let mut answered = false;
        loop {
            while let Ok(newer) = calls.try_recv() {
                request = request.or_newer(*newer, exec, &action);
            }
            let gone = match &outcome {
                Outcome::Hold(first) => match self.clone().hold(request, first.clone(), inquiry).await {
                    Some((interrupted, caller)) => {
                        inquiry = interrupted;
                        caller
                    }
                    None => return,
                },
                Outcome::Allow(decision) | Outcome::Deny(decision) => {
                    let gone = request.caller();
                    let carried = self.clone().carry_out(request, decision.clone()).await;
                    answered = !matches!(carried, Carried::Gone);
                    if answered && !self.shared.interruptible {
                        return;
                    }
                    gone
                }
            };
            let newer = tokio::select! {
                newer = calls.recv() => match newer {
                    Some(newer) => Ok((*newer).under(exec, &action)),
                    None => Err(ANOTHER),
                },
                () = wait::readable(gone) => Err(DEAD),
                () = tokio::time::sleep(again::WAITS) => Err(NOT_AGAIN),
            };
            request = match newer {
                Ok(newer) => newer,
                Err(_) if answered => return,
                Err(why) => return inquiry.gone(why),
            };
            if let Outcome::Allow(decision) | Outcome::Deny(decision) = &outcome
                && decision.epoch != self.shared.asker.epoch(&self.sandbox.scope.sandbox)
            {
                if !answered {
                    inquiry.gone(
                        "another policy is in force since the call was interrupted, and it is asked about again",
                    );
                }
                drop(calls);
                return self.put(request);
            }
        }
    }

    async fn carry_out(self, request: Request, decision: pb::Decision) -> Carried {
        let allowed = matches!(decision.verdict(), pb::Verdict::Allow | pb::Verdict::Log);
        if allowed && self.must_stop(&request, &decision) {
            return self.allow_stopped(request, decision).await;
        }
        let carried = blocking(move || match allowed {
            true => self.allow(request, &decision),
            false if self.deny(request, &decision) => Carried::Refused,
            false => Carried::Gone,
        });
        // The runtime stops: what it owned was refused.
        carried.await.unwrap_or(Carried::Refused)
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
        let gone = request.caller();
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
/// Shows what the files contain.
pub(crate) fn show_digests(action: &mut pb::ExecAction, mut digests: Vec<String>) {
    if !action.loader.is_empty() {
        action.loader_sha256 = digests.pop().unwrap_or_default();
    }
    action.executable_sha256 = digests.pop().unwrap_or_default();
    let mut scripts = digests.into_iter();
    action.script_sha256 = scripts.next().unwrap_or_default();
    action.nested_sha256 = scripts.collect();
}
