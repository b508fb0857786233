//! Events between the gates and the supervisor.
//!
//! Sequence numbers have no gaps: an event that is dropped never gets one. What was dropped is counted by the way it
//! was lost, and the counts become `LostEvent`s as soon as there is room. The spool is bounded in events and in bytes,
//! because what a sandbox does decides how much arrives here. An event stays until it is acknowledged.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clawsec_core::EventSink;
use clawsec_proto as pb;
use prost::Message as _;
use tokio::sync::watch;

use crate::clock::now_us;
use crate::tables::Tables;

/// Most events of one batch, as the contract says.
const BATCH_EVENTS: usize = 512;
/// Most bytes of one batch (unless one event alone is larger). gRPC clients take 4 MiB by default.
const BATCH_BYTES: usize = 1 << 20;
/// How long a batch that is not full waits for more.
const FLUSH_AFTER: Duration = Duration::from_millis(20);
/// The same, when there was a batch within this time: the supervisor makes each batch durable, which costs it the same for
/// one event as for a hundred (1.8 ms of processor time, measured with SQLite's WAL).
const FLUSH_BUSY_AFTER: Duration = Duration::from_millis(100);

/// How much the spool keeps.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Events that are not acknowledged.
    pub events: usize,
    /// Their encoded size.
    pub bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { events: 100_000, bytes: 128 << 20 }
    }
}

/// Keeps events until the supervisor has acknowledged them.
#[derive(Debug)]
pub struct Spool {
    tables: Arc<Tables>,
    bounds: Bounds,
    state: Mutex<State>,
    /// Counts changes, so that a reader can wait for one.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Sequence of the event that was taken last.
    last: u64,
    /// Everything up to and with this sequence is acknowledged.
    acknowledged: u64,
    /// Sequences `acknowledged + 1 ..= last`.
    events: VecDeque<(pb::Event, usize)>,
    bytes: usize,
    lost: BTreeMap<&'static str, Lost>,
    /// Number of the reader in charge, and the sequence up to which it has taken events.
    reader: u64,
    taken: u64,
}

/// Events of one way that were lost, and not told yet.
#[derive(Debug, Clone, Copy)]
struct Lost {
    count: u64,
    since_us: u64,
    until_us: u64,
}

impl State {
    fn lose(&mut self, way: &'static str, more: Lost) {
        let lost = self.lost.entry(way).or_insert(Lost { count: 0, ..more });
        lost.count += more.count;
        lost.since_us = lost.since_us.min(more.since_us);
        lost.until_us = lost.until_us.max(more.until_us);
    }

    fn has_room(&self, size: usize, bounds: Bounds) -> bool {
        self.events.len() < bounds.events && self.bytes.saturating_add(size) <= bounds.bytes
    }

    fn push(&mut self, mut event: pb::Event, size: usize) {
        self.last += 1;
        event.sequence = self.last;
        self.bytes += size;
        self.events.push_back((event, size));
    }

    /// Events that the reader in charge has not taken.
    fn waiting(&self) -> u64 {
        self.last.saturating_sub(self.taken.max(self.acknowledged))
    }

    /// Turns the counts of lost events into events, as far as there is room.
    fn settle_lost(&mut self, bounds: Bounds) {
        while let Some((&way, &Lost { count, since_us, until_us })) = self.lost.first_key_value() {
            let lost = pb::LostEvent { way: way.to_owned(), count, since_us, until_us };
            let event = pb::Event {
                time_us: now_us(),
                kind: Some(pb::event::Kind::Lost(lost)),
                ..Default::default()
            };
            let size = event.encoded_len();
            if !self.has_room(size, bounds) {
                return;
            }
            self.lost.remove(way);
            self.push(event, size);
        }
    }

    fn after(&self, cursor: u64) -> impl Iterator<Item = &(pb::Event, usize)> {
        let skip = usize::try_from(cursor.saturating_sub(self.acknowledged)).unwrap_or(usize::MAX);
        self.events.iter().skip(skip)
    }
}

impl Spool {
    /// An empty spool.
    pub fn new(tables: Arc<Tables>, bounds: Bounds) -> Self {
        Self { tables, bounds, state: Mutex::default(), changed: watch::Sender::new(0) }
    }

    /// Makes a reader that begins with the first event that is not acknowledged. It takes over: readers made before
    /// it end.
    pub fn reader(self: &Arc<Self>) -> Reader {
        let (number, cursor) = {
            let mut state = self.lock();
            state.reader += 1;
            state.taken = state.acknowledged;
            (state.reader, state.acknowledged)
        };
        self.wake();
        Reader { spool: Arc::clone(self), changed: self.changed.subscribe(), number, cursor, gave: None }
    }

    /// Forgets every event up to and with `sequence`. An acknowledgement of what was never sent is ignored.
    pub fn acknowledge(&self, sequence: u64) {
        let mut state = self.lock();
        if sequence > state.last {
            tracing::warn!(
                sequence,
                last = state.last,
                "an acknowledgement of events that do not exist was ignored"
            );
            return;
        }
        while state.acknowledged < sequence {
            state.acknowledged += 1;
            if let Some((_, size)) = state.events.pop_front() {
                state.bytes -= size;
            }
        }
        state.settle_lost(self.bounds);
        drop(state);
        self.wake();
    }

    /// Events that wait for an acknowledgement.
    pub fn unacknowledged(&self) -> usize {
        self.lock().events.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl EventSink for Spool {
    fn emit(&self, mut event: pb::Event) {
        if event.time_us == 0 {
            event.time_us = now_us();
        }
        self.stamp(&mut event);
        // The sequence is not known yet: 10 bytes are the most it takes.
        let size = event.encoded_len() + 10;
        let mut state = self.lock();
        let waited = state.waiting();
        if state.has_room(size, self.bounds) {
            // What was lost before comes first, so that the log tells it in order.
            state.settle_lost(self.bounds);
        }
        if state.has_room(size, self.bounds) {
            state.push(event, size);
        } else {
            let now = now_us();
            state.lose("spool-full", Lost { count: 1, since_us: now, until_us: now });
        }
        let waiting = state.waiting();
        drop(state);
        // A reader that has begun to wait for more events needs no word of each: that would cost more than the event.
        if waited == 0 || (waited < BATCH_EVENTS as u64 && waiting >= BATCH_EVENTS as u64) {
            self.wake();
        }
    }

    fn stamp(&self, event: &mut pb::Event) {
        if event.policy_hash.is_empty() && !event.sandbox.is_empty() {
            event.policy_hash = self.tables.hash(&event.sandbox);
        }
    }

    fn lost(&self, way: &'static str, count: u64) {
        let now = now_us();
        self.lost_between(way, count, now, now);
    }

    fn lost_between(&self, way: &'static str, count: u64, since_us: u64, until_us: u64) {
        if count == 0 {
            return;
        }
        self.lock().lose(way, Lost { count, since_us, until_us });
        self.wake();
    }
}

/// Reads batches in order. See [`Spool::reader`].
#[derive(Debug)]
pub struct Reader {
    spool: Arc<Spool>,
    changed: watch::Receiver<u64>,
    number: u64,
    cursor: u64,
    /// When the last batch was given.
    gave: Option<tokio::time::Instant>,
}

impl Reader {
    /// The next batch; `None` once another reader has taken over. Cancel-safe.
    pub async fn next(&mut self) -> Option<pb::EventBatch> {
        let mut flush_at = None;
        loop {
            self.changed.mark_unchanged();
            {
                let mut state = self.spool.lock();
                if state.reader != self.number {
                    return None;
                }
                state.settle_lost(self.spool.bounds);
                let waiting = state.waiting();
                let due = flush_at.is_some_and(|at| tokio::time::Instant::now() >= at);
                if waiting >= BATCH_EVENTS as u64 || (waiting > 0 && due) {
                    let (batch, cursor) = take(&state, self.cursor);
                    self.cursor = cursor;
                    self.gave = Some(tokio::time::Instant::now());
                    state.taken = cursor;
                    return Some(batch);
                }
                if waiting > 0 && flush_at.is_none() {
                    let now = tokio::time::Instant::now();
                    let busy = self.gave.is_some_and(|gave| now.duration_since(gave) < FLUSH_BUSY_AFTER);
                    flush_at = Some(now + if busy { FLUSH_BUSY_AFTER } else { FLUSH_AFTER });
                }
            }
            match flush_at {
                // `changed` fails only without a sender, and the spool, which we hold, has it.
                None => drop(self.changed.changed().await),
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    _ = self.changed.changed() => {}
                },
            }
        }
    }
}

/// The events after `cursor` that fit in a batch, and the cursor after them.
fn take(state: &State, mut cursor: u64) -> (pb::EventBatch, u64) {
    let mut events = Vec::new();
    let mut bytes = 0;
    for (event, size) in state.after(cursor).take(BATCH_EVENTS) {
        if !events.is_empty() && bytes + size > BATCH_BYTES {
            break;
        }
        bytes += size;
        cursor = event.sequence;
        events.push(event.clone());
    }
    (pb::EventBatch { events }, cursor)
}

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;
