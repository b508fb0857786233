//! What all tasks of one sandbox share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use clawsec_core::{Asker, Scope};
use clawsec_proto as pb;
use tokio::sync::Semaphore;

use crate::bpf::{Flows, Origin};
use crate::dial;
use crate::live::{Grant, Live};
use crate::pool::Pool;
use crate::report::{Reporter, Throttle};
use crate::request::Seen;
use crate::splice;
use crate::table::{Destination, Ruling, Table};

/// Connections that one sandbox may have at the gate at once, held ones included.
const MOST_CONNECTIONS: u64 = 4096;
/// Descriptors that one connection takes at most: two sockets and two pipes.
const DESCRIPTORS: u64 = 6;
/// Answers kept for use again.
const MOST_ANSWERS: usize = 4096;
/// Longest path of a request whose answer is kept, in bytes.
const LONGEST_KEPT_PATH: usize = 1024;

/// State of one sandbox's gate.
pub(crate) struct Shared {
    pub(crate) sandbox: Arc<str>,
    pub(crate) scope: Scope,
    pub(crate) asker: Arc<dyn Asker>,
    pub(crate) reporter: Reporter,
    pub(crate) table: ArcSwap<Table>,
    pub(crate) pool: Pool,
    pub(crate) live: Arc<Live>,
    pub(crate) flows: Flows,
    pub(crate) answers: Answers,
    pub(crate) large_pipes: Arc<Semaphore>,
    pub(crate) lookups: Semaphore,
    pub(crate) room: Arc<Semaphore>,
    /// Places in `room` altogether.
    pub(crate) most_connections: usize,
    /// Kinds of denial that a sandbox could produce without end, by subject and name or reason.
    pub(crate) throttle: Throttle<(Arc<str>, Arc<str>)>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("sandbox", &self.sandbox).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(
        scope: Scope,
        asker: Arc<dyn Asker>,
        reporter: Reporter,
        table: Table,
        flows: Flows,
    ) -> Self {
        let most_connections = most_connections();
        Self {
            sandbox: scope.sandbox.as_str().into(),
            scope,
            asker,
            reporter,
            table: ArcSwap::from_pointee(table),
            pool: Pool::new(crate::pool::CAPACITY),
            live: Arc::default(),
            flows,
            answers: Answers::default(),
            large_pipes: splice::large_pipes(),
            lookups: Semaphore::new(dial::LOOKUPS),
            room: Arc::new(Semaphore::new(most_connections)),
            most_connections,
            throttle: Throttle::new(),
        }
    }

    /// The subject that an origin belongs to.
    pub(crate) fn subject_of(&self, origin: &Origin) -> Option<Arc<str>> {
        self.scope.subject_of(origin.cgroup).map(|subject| subject.name.as_str().into())
    }

    /// What the present table says about a connection that was let through.
    pub(crate) fn ruling(&self, grant: &Grant) -> Ruling {
        self.table.load().rule_for(&grant.subject, &grant.destination, grant.port, &grant.seen)
    }

    /// Whether a connection that was let through would be let through by the present table too. Where the table now
    /// asks, an answer that was given stands, and what a row allowed by itself does not. A connection that carries HTTP
    /// and is not read as such cannot stand where the table looks at requests now.
    pub(crate) fn stands(&self, grant: &Grant) -> bool {
        let Grant { subject, destination, port, seen, peer, answered } = grant;
        let table = self.table.load();
        let unread = *seen == Seen::Protocol(pb::ObservedProtocol::Http)
            && table.looks_at_requests(subject, destination, *port);
        let ruling = table.rule_for(subject, destination, *port, seen);
        let verdict = match ruling.verdict {
            pb::Verdict::Allow | pb::Verdict::Log => true,
            pb::Verdict::Hold | pb::Verdict::Ask => answered.is_some(),
            pb::Verdict::Deny | pb::Verdict::Unspecified => false,
        };
        let opening = table.opening(&ruling, answered.as_deref(), subject, destination, *port);
        verdict && !unread && dial::may_dial(destination, &opening, *peer)
    }
}

/// [`MOST_CONNECTIONS`], or fewer where half of the descriptors that this process may open is not enough for them:
/// a sandbox must not be able to take from the loader what it needs for the others.
fn most_connections() -> usize {
    let open = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        .map_or(1024, |(soft, _)| soft);
    usize::try_from((open / 2 / DESCRIPTORS).clamp(16, MOST_CONNECTIONS)).unwrap_or(16)
}

/// What an answer was given to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Asked {
    pub(crate) subject: Arc<str>,
    pub(crate) destination: Destination,
    pub(crate) port: u16,
    pub(crate) seen: Seen,
    /// Rule id of the row that asked.
    pub(crate) rule: Arc<str>,
}

/// An answer, with the epoch it was made for.
type ForEpoch = (u64, pb::Decision);

/// Answers that may be used again, under the epoch they were made for.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    known: Mutex<HashMap<Asked, ForEpoch>>,
}

impl Answers {
    /// The answer to the same question under the same epoch.
    pub(crate) fn get(&self, asked: &Asked, epoch: u64) -> Option<pb::Decision> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (made_for, decision) = known.get(asked)?;
        (*made_for == epoch).then(|| decision.clone())
    }

    /// Keeps an answer if it says that it may be kept. Both scopes of files read as "this destination", and for a
    /// request "this method and path".
    pub(crate) fn keep(&self, asked: Asked, epoch: u64, decision: &pb::Decision) {
        match decision.cache_scope() {
            pb::CacheScope::File | pb::CacheScope::FileArgv => {}
            pb::CacheScope::None | pb::CacheScope::Unspecified => return,
        }
        // A sandbox chooses its paths, and must not fill the memory with them.
        if asked.seen.request().is_some_and(|request| request.path.len() > LONGEST_KEPT_PATH) {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_ANSWERS {
            known.clear();
        }
        known.insert(asked, (epoch, decision.clone()));
    }

    /// Forgets all: a new table has come.
    pub(crate) fn clear(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
