//! The same call again: a signal ended the wait for an answer, and the kernel or the caller makes the call once more.
//!
//! It happens with a filter whose calls do not wait whatever comes (`SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, Linux
//! 5.19). Each time the call is another notification, of the same thread and with the same content. It is the same
//! question: the newest call takes the place of the one that was asked about, until an answer reached one. So a storm
//! of signals asks once, and no answer is spent on a call that did not take place.
//!
//! That an answer was taken does not say that it reached the call: when a signal came first, the kernel takes the answer
//! (`SECCOMP_IOCTL_NOTIF_SEND` succeeds), drops it, and the call is interrupted all the same. So with such a filter the
//! same call of the same thread gets the same answer for a while: an allowance until its exec took place, since the new
//! image is no caller of before; a denial until [`WAITS`] is over, also when the process only tries again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clawsec_core::pb;
use prost::Message as _;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::handler::Request;

/// How long an answer waits for its call to come again.
pub const WAITS: Duration = Duration::from_secs(5);
/// Entries after which those that are over are looked for.
const COLLECT: usize = 1024;

/// Hash of what a call is about.
pub type Content = [u8; 32];

/// The calls of one sandbox that are being decided, by thread.
#[derive(Default)]
pub struct Calls {
    known: Mutex<HashMap<i32, Known>>,
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Calls")
    }
}

struct Known {
    content: Content,
    // Boxed, as a channel has room for many from its start.
    newer: UnboundedSender<Box<Request>>,
}

/// All that a question says, but the id of this one exec; which image asks; and the environment, of which a question has
/// the names alone. An exec that took place makes another image, so that no later call is the same.
pub fn content(request: &Request) -> Content {
    let action = pb::ExecAction { exec_id: String::new(), ..request.action.clone() };
    let mut hash = Sha256::new();
    hash.update(request.parent.to_ne_bytes());
    hash.update(request.subject.cgroup_id.to_ne_bytes());
    if let Some(environment) = request.environment {
        hash.update(environment.hash.to_ne_bytes());
        hash.update(environment.length.to_ne_bytes());
    }
    hash.update(action.encode_to_vec());
    hash.finalize().into()
}

impl Request {
    /// Of two notifications of the same call the one that still waits: the later one, whichever was read first. It goes
    /// on under the number that was asked about.
    pub fn or_newer(self, other: Self, exec: u64, action: &pb::ExecAction) -> Self {
        let newest = if other.notification.id > self.notification.id { other } else { self };
        newest.under(exec, action)
    }

    /// This call under the number of the one that was asked about.
    pub fn under(mut self, exec: u64, action: &pb::ExecAction) -> Self {
        self.exec = exec;
        self.action = action.clone();
        self
    }
}

impl Calls {
    /// Meets a call that is about to be asked about. The same call, made again, comes out of the receiver as long as
    /// that is kept. `None`: it is such a one.
    pub fn meet(&self, mut request: Request) -> Option<(Request, UnboundedReceiver<Box<Request>>)> {
        let content = content(&request);
        let tid = request.task.tid;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.get(&tid).filter(|known| known.content == content) {
            match same.newer.send(Box::new(request)) {
                Ok(()) => return None,
                // Whoever waited has ended.
                Err(sent) => request = *sent.0,
            }
        }
        if known.len() >= COLLECT {
            known.retain(|_, known| !known.newer.is_closed());
        }
        let (newer, calls) = unbounded_channel();
        known.insert(tid, Known { content, newer });
        Some((request, calls))
    }
}
