//! An exec that stops at its event: a held one, from the seizing to the final verdict, and one that enters a subject.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use clawsec_core::{Inquiry, Outcome, ask, pb};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::grip::Grip;
use crate::handler::{Carried, ExecHandler, Request, blocking};
use crate::hold::{SeizeError, Stopped};
use crate::{facts, reason};

/// Resolves when the descriptor can be read; never without one.
pub(crate) async fn readable(fd: Option<OwnedFd>) {
    // SAFETY: the `AsyncFd` owns the descriptor, so it stays open and the same while it is registered.
    let register = |fd| unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    let fd = fd.and_then(|fd| register(fd).ok());
    match &fd {
        Some(fd) => {
            let _ = fd.readable().await;
        }
        None => std::future::pending().await,
    }
}

/// Whether the descriptor can be read now: of a pidfd, that what it means is dead.
pub(crate) fn is_readable(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // What cannot be told counts as dead: nothing waits for it.
    !matches!(poll(&mut fds, Some(&now)), Ok(0))
}

const NO_SUBJECT: &str = "the decision names a subject that the sandbox does not have";

impl ExecHandler {
    /// Lets the exec happen, holds the new image, and does what the second decision says. Gives the inquiry back when
    /// the call was interrupted before it could go on, with what tells the death of its caller: the same call can be held
    /// when it comes again.
    pub(crate) async fn hold(
        self,
        request: Request,
        first: pb::Decision,
        mut inquiry: Inquiry,
    ) -> Option<(Inquiry, Option<OwnedFd>)> {
        if request.action.check {
            self.hold_check(request, first, inquiry).await;
            return None;
        }
        let caller = request.caller();
        let exec = request.exec;
        let subject = request.subject.name.clone();
        let process = request.process.clone();
        let expected = request.action.clone();
        let loaded = facts::Loaded {
            path: request.image.loaded().path.clone(),
            argv: request.image.argv.clone(),
            variables: request.image.variables.clone(),
        };
        let received = request.notification.received;

        let (request, seized) = self.seize(request, &first).await?;
        let (grip, ways) = match seized {
            Ok(seized) => seized,
            Err(SeizeError::Gone) => {
                inquiry.gone("the process that wanted to exec is dead");
                return None;
            }
            Err(SeizeError::Refused(message)) => {
                let denial =
                    pb::Decision { hold_id: first.hold_id, ..ask::denial(first.question_id, &message) };
                blocking(move || self.deny(request, &denial)).await;
                inquiry.settled(pb::Verdict::Deny, 0);
                return None;
            }
        };
        let carried = {
            let (this, first) = (self.clone(), first.clone());
            blocking(move || this.allow(request, &first)).await
        };
        // Whatever became of it: the tracer lets go of a task that does not exec.
        grip.continued();
        match carried {
            Some(Carried::Out) => {}
            Some(Carried::Refused) => {
                inquiry.settled(pb::Verdict::Deny, 0);
                return None;
            }
            Some(Carried::Gone) if caller.as_ref().is_some_and(|caller| !is_readable(caller)) => {
                return Some((inquiry, caller));
            }
            Some(Carried::Gone) | None => {
                inquiry.gone("the process that wanted to exec is dead");
                return None;
            }
        }
        let image = match ways.stopped.await {
            Ok(Stopped::Held(image)) => image,
            // The answer may have been dropped for a signal that came first.
            Ok(Stopped::Failed) if self.shared.interruptible => return Some((inquiry, caller)),
            Ok(Stopped::Failed) => {
                inquiry.gone("the exec failed in the kernel");
                return None;
            }
            Ok(Stopped::Gone) | Err(_) => {
                inquiry.gone("the process died before its new image could be held");
                return None;
            }
        };
        // From here the tracer looks after the process: thousands can be held, and each descriptor counts.
        drop(caller);
        if let Err(why) = self.check_image(image, exec, &grip).await {
            inquiry.gone(why);
            return None;
        }
        let facts = blocking({
            let expected = expected.clone();
            move || facts::held(&expected, &loaded, image)
        })
        .await
        .unwrap_or(expected);
        inquiry.engaged(Some(facts.clone()));

        let outcome = tokio::select! {
            outcome = inquiry.next() => outcome,
            why = ways.gone => {
                inquiry.gone(why.unwrap_or_else(|_| "the gate ends".into()));
                return None;
            }
        };
        let decided = Instant::now();
        let (mut decision, allowed) = match outcome {
            Outcome::Allow(decision) => (decision, true),
            Outcome::Deny(decision) | Outcome::Hold(decision) => (decision, false),
        };
        let allowed = allowed && self.enter_held(image, &first, &mut decision).await;
        let mut decision = ask::after_hold(&first, decision);
        let done = if allowed {
            grip.resume().await
        } else {
            self.tell_held(&grip, &facts, &decision).await;
            grip.kill().await
        };
        let resumed_us = decided.elapsed().as_micros() as u64;
        if !done {
            inquiry.gone("the held process was killed");
            return None;
        }
        let verdict = if allowed { pb::Verdict::Allow } else { pb::Verdict::Deny };
        if !allowed {
            decision.verdict = pb::Verdict::Deny.into();
        }
        let latency = received.elapsed().as_micros() as u64;
        self.report(&subject, facts, process, &decision, latency);
        inquiry.settled(verdict, resumed_us);
        None
    }

    // Nothing runs, so the call itself waits.
    async fn hold_check(self, request: Request, first: pb::Decision, mut inquiry: Inquiry) {
        let gone = request.caller();
        inquiry.engaged(Some(request.action.clone()));
        let outcome = tokio::select! {
            outcome = inquiry.next() => outcome,
            () = readable(gone) => return inquiry.gone("the process that asked is dead"),
        };
        let decided = Instant::now();
        let (decision, allowed) = match outcome {
            Outcome::Allow(decision) => (decision, true),
            Outcome::Deny(decision) | Outcome::Hold(decision) => (decision, false),
        };
        let mut decision = ask::after_hold(&first, decision);
        let verdict = if allowed { pb::Verdict::Allow } else { pb::Verdict::Deny };
        decision.verdict = verdict.into();
        let told = blocking(move || match allowed {
            true => matches!(self.allow(request, &decision), Carried::Out),
            false => self.deny(request, &decision),
        });
        if told.await == Some(true) {
            inquiry.settled(verdict, decided.elapsed().as_micros() as u64);
        } else {
            inquiry.gone("the process that asked is dead");
        }
    }

    /// Lets the exec happen, and stops the new image before it runs: to move the process to the subject that the
    /// decision names, to follow it until it has read its script, or both. An exec that fails moves nothing.
    pub(crate) async fn allow_stopped(self, request: Request, decision: pb::Decision) -> Carried {
        let exec = request.exec;
        let subject = request.subject.name.clone();
        let (action, process) = (request.action.clone(), request.process.clone());
        let received = request.notification.received;
        let named = &decision.enter_subject;
        if !named.is_empty() && self.sandbox.scope.subject(named).is_none() {
            let denial = ask::denial(decision.question_id, NO_SUBJECT);
            blocking(move || self.deny(request, &denial)).await;
            return Carried::Refused;
        }
        let Some((request, seized)) = self.seize(request, &decision).await else { return Carried::Gone };
        let (grip, ways) = match seized {
            Ok(seized) => seized,
            Err(SeizeError::Gone) => return Carried::Gone,
            Err(SeizeError::Refused(message)) => {
                let denial = ask::denial(decision.question_id, &message);
                blocking(move || self.deny(request, &denial)).await;
                return Carried::Refused;
            }
        };
        let carried = {
            let (this, decision) = (self.clone(), decision.clone());
            blocking(move || this.allow(request, &decision)).await
        };
        // Whatever became of it: the tracer lets go of a task that does not exec.
        grip.continued();
        match carried {
            Some(Carried::Out) => {}
            Some(carried) => return carried,
            None => return Carried::Gone,
        }
        let Ok(Stopped::Held(image)) = ways.stopped.await else {
            // It failed as any allowed exec can, or the process died.
            return Carried::Out;
        };
        if self.check_image(image, exec, &grip).await.is_err() {
            return Carried::Out;
        }
        let named = decision.enter_subject.clone();
        let this = self.clone();
        let enter = move || if named.is_empty() { Ok(()) } else { this.enter(image, &named) };
        match blocking(enter).await {
            Some(Ok(())) => {
                grip.resume().await;
                Carried::Out
            }
            failed => {
                grip.kill().await;
                let message = failed.and_then(Result::err).unwrap_or_else(|| "the gate ends".into());
                let denial = ask::denial(decision.question_id, &message);
                let latency = received.elapsed().as_micros() as u64;
                self.report(&subject, action, process, &denial, latency);
                Carried::Refused
            }
        }
    }

    // Whether the image that stands at its exec event is that of `exec`. If not, nothing is left to do for it, and the
    // error says why. After an exec that failed, the task may have called another one before it could be stopped.
    async fn check_image(&self, image: i32, exec: u64, grip: &Grip) -> Result<(), &'static str> {
        match self.shared.verify.image_of(image) {
            number if number == exec => Ok(()),
            number if number > exec => {
                // That one was allowed by itself, to run where it is: a second hold or entry of the same task cannot
                // seize it.
                grip.resume().await;
                Err("the exec failed in the kernel, and the process called another one")
            }
            _ => {
                grip.kill().await;
                Err("the held image could not be told from another one, and was killed")
            }
        }
    }

    // A held image runs nothing, so it enters its subject when it is allowed to run, and not before.
    async fn enter_held(&self, pid: i32, first: &pb::Decision, decision: &mut pb::Decision) -> bool {
        let named = [&decision.enter_subject, &first.enter_subject].into_iter().find(|name| !name.is_empty());
        let Some(subject) = named.cloned() else { return true };
        let this = self.clone();
        let entered = blocking(move || this.enter(pid, &subject)).await;
        match entered {
            Some(Ok(())) => true,
            Some(Err(message)) => {
                let hold_id = decision.hold_id.clone();
                *decision = pb::Decision { hold_id, ..ask::denial(decision.question_id, &message) };
                false
            }
            None => false,
        }
    }

    // Says why on the standard error of an image that is about to be killed: its caller sees no error of execve. The
    // descriptor is one that the tracer opened while the image stood, so that no other process is written to.
    async fn tell_held(&self, grip: &Grip, facts: &pb::ExecAction, decision: &pb::Decision) {
        let Some(pidfd) = grip.pidfd().await else { return };
        let (this, line) = (self.clone(), self.line(facts, decision));
        blocking(move || reason::tell(pidfd.as_fd(), &this.sandbox.budget, &line)).await;
    }

    // Moves a process that stands at its exec event, and so has one thread, to a subject's cgroup. The error is a
    // sentence.
    fn enter(&self, pid: i32, subject: &str) -> Result<(), String> {
        let subject = self.sandbox.scope.subject(subject).ok_or(NO_SUBJECT)?;
        let path = subject.cgroup.join("cgroup.procs");
        let moved = OpenOptions::new().write(true).open(&path);
        let moved = moved.and_then(|mut file| file.write_all(pid.to_string().as_bytes()));
        moved.map_err(|error| format!("the process cannot enter the subject {} ({error})", subject.name))
    }
}
