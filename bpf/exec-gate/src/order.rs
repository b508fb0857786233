//! Tells events in the order in which they happened.
//!
//! What BPF saw is read some milliseconds later, and everybody else reports at once: without a place where both wait for
//! each other, the refusal of a program would be told before the start of the one that called it.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clawsec_core::{EventSink, pb};
use rustix::event::{EventfdFlags, eventfd};

use crate::error::Error;
use crate::length::Allowances;
use crate::sys;

/// BPF takes the time of an event before it puts it into the ring: by this much later, it is there.
pub const UNDER_WAY: Duration = Duration::from_millis(1);
/// Events that may wait. More are counted as lost: what a sandbox does decides how many there are.
const WAITING_MAX: usize = 1 << 15;
/// Whoever waits for events to be told waits this long.
const SETTLED: Duration = Duration::from_secs(1);
/// Two clocks that are read one after the other are that far apart, or the thread was interrupted between them.
const READ_TOGETHER_NS: u64 = 20_000;

/// Takes events of all threads; one thread tells them.
pub struct Order {
    sink: Arc<dyn EventSink>,
    allowances: Allowances,
    bell: OwnedFd,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    // With the moment of each, ns of CLOCK_BOOTTIME.
    waiting: Vec<(u64, pb::Event)>,
    // Everything up to this moment was told, and is wanted to have been.
    told: u64,
    wanted: u64,
    last_us: u64,
    // Nobody tells any more: what comes goes out by itself.
    ended: bool,
}

impl Order {
    /// Puts an order before a sink.
    pub fn new(sink: Arc<dyn EventSink>) -> Result<Self, Error> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let bell = bell.map_err(|error| Error::io("no eventfd for the events")(error.into()))?;
        Ok(Self {
            sink,
            allowances: Allowances::default(),
            bell,
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Can be read when there is something to tell.
    pub fn bell(&self) -> &OwnedFd {
        &self.bell
    }

    fn ring(&self) {
        // It fails only when the counter is full, and then the bell rings already.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// Takes an event of a moment (ns of CLOCK_BOOTTIME) that was read from BPF.
    pub fn seen(&self, moment: u64, mut event: pb::Event) {
        self.sink.stamp(&mut event);
        self.push(&mut self.lock(), moment, event);
    }

    // The moment is taken under the lock, so that nothing older comes after `tell` has looked.
    fn push(&self, state: &mut State, moment: u64, mut event: pb::Event) {
        self.allowances.shorten(&mut event);
        if state.waiting.len() < WAITING_MAX {
            state.waiting.push((moment, event));
        } else {
            self.sink.lost("event-order-full", 1);
        }
    }

    /// Until when events must be told for those who wait, if they are not. Ns of CLOCK_BOOTTIME.
    pub fn wanted(&self) -> Option<u64> {
        let state = self.lock();
        (state.told < state.wanted).then_some(state.wanted)
    }

    /// Whether something waits.
    pub fn is_waiting(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    /// The moment up to which events can be told once the ring was read, which must come after this.
    pub fn moment(&self) -> u64 {
        let _pushes_after_it_are_later = self.lock();
        sys::boot_ns().saturating_sub(UNDER_WAY.as_nanos() as u64)
    }

    /// Tells the events up to a moment. For one thread.
    pub fn tell(&self, until: u64) {
        // Nothing to read: nobody rang.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        let mut state = self.lock();
        let mut due: Vec<_> = state.waiting.extract_if(.., |(moment, _)| *moment <= until).collect();
        due.sort_by_key(|(moment, _)| *moment);
        let (now_us, now) = both_clocks();
        for (moment, event) in &mut due {
            if event.time_us == 0 {
                event.time_us = now_us.saturating_sub(now.saturating_sub(*moment) / 1000);
                // Not before the one that was told before it, by how exactly two clocks can be read together.
                if (1..=READ_TOGETHER_NS / 1000).contains(&state.last_us.saturating_sub(event.time_us)) {
                    event.time_us = state.last_us;
                }
                state.last_us = event.time_us;
            }
        }
        drop(state);
        for (_, event) in due {
            self.sink.emit(event);
        }
        self.lock().told = until;
        self.changed.notify_all();
    }

    /// Tells what waits, and from here on each event at once.
    pub fn end(&self) {
        self.lock().ended = true;
        self.tell(u64::MAX);
    }

    /// Returns when each event of what happened before the call was told, or after a second. Blocks for some milliseconds
    /// at most while the thread tells.
    pub fn settle(&self) {
        let mut state = self.lock();
        let wanted = sys::boot_ns();
        state.wanted = state.wanted.max(wanted);
        self.ring();
        let done = self.changed.wait_timeout_while(state, SETTLED, |state| state.told < wanted);
        if done.is_ok_and(|(_, waited)| waited.timed_out()) {
            tracing::error!("the exec events were not read within {SETTLED:?}");
        }
    }
}

impl EventSink for Order {
    fn emit(&self, mut event: pb::Event) {
        self.sink.stamp(&mut event);
        let mut state = self.lock();
        if state.ended {
            drop(state);
            self.allowances.shorten(&mut event);
            self.sink.emit(event);
            return;
        }
        let is_first = state.waiting.is_empty();
        self.push(&mut state, sys::boot_ns(), event);
        drop(state);
        if is_first {
            self.ring();
        }
    }

    fn stamp(&self, event: &mut pb::Event) {
        self.sink.stamp(event);
    }

    fn lost(&self, way: &'static str, count: u64) {
        self.sink.lost(way, count);
    }

    fn lost_between(&self, way: &'static str, count: u64, since_us: u64, until_us: u64) {
        self.sink.lost_between(way, count, since_us, until_us);
    }
}

// Microseconds since the Unix epoch and nanoseconds of CLOCK_BOOTTIME at one moment.
fn both_clocks() -> (u64, u64) {
    let mut before = sys::boot_ns();
    let mut now_us = sys::now_us();
    for _ in 0..8 {
        let after = sys::boot_ns();
        if after - before <= READ_TOGETHER_NS {
            break;
        }
        before = sys::boot_ns();
        now_us = sys::now_us();
    }
    (now_us, before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Sink(Mutex<(Vec<pb::Event>, u64)>);

    impl EventSink for Sink {
        fn emit(&self, event: pb::Event) {
            self.0.lock().unwrap().0.push(event);
        }

        fn lost(&self, way: &'static str, count: u64) {
            assert_eq!(way, "event-order-full");
            self.0.lock().unwrap().1 += count;
        }
    }

    fn event(name: &str) -> pb::Event {
        pb::Event { sandbox: name.into(), ..Default::default() }
    }

    fn names(sink: &Sink) -> Vec<String> {
        sink.0.lock().unwrap().0.iter().map(|event| event.sandbox.clone()).collect()
    }

    #[test]
    fn what_was_seen_earlier_is_told_earlier_and_what_is_too_new_waits() {
        let sink = Arc::new(Sink::default());
        let order = Order::new(Arc::clone(&sink) as _).unwrap();
        let start = sys::boot_ns();
        order.emit(event("refused"));
        order.seen(start, event("seen"));
        order.seen(start + 3_600_000_000_000, event("later"));
        order.tell(sys::boot_ns());
        assert_eq!(names(&sink), ["seen", "refused"]);
        assert!(order.is_waiting());
        let told = sink.0.lock().unwrap().0.clone();
        assert!(0 < told[0].time_us && told[0].time_us <= told[1].time_us);
        order.end();
        order.emit(event("at once"));
        assert_eq!(names(&sink), ["seen", "refused", "later", "at once"]);
    }

    #[test]
    fn who_settles_waits_for_what_was_reported_before_and_no_longer() {
        let sink = Arc::new(Sink::default());
        let order = Arc::new(Order::new(Arc::clone(&sink) as _).unwrap());
        assert_eq!(order.wanted(), None);
        order.emit(event("a"));
        let waits = std::thread::spawn({
            let order = Arc::clone(&order);
            move || order.settle()
        });
        while order.wanted().is_none() {
            std::thread::yield_now();
        }
        while !waits.is_finished() {
            order.tell(order.moment());
        }
        waits.join().unwrap();
        assert_eq!(names(&sink), ["a"]);
        assert_eq!(order.wanted(), None);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let sink = Arc::new(Sink::default());
        let order = Order::new(Arc::clone(&sink) as _).unwrap();
        for _ in 0..WAITING_MAX + 3 {
            order.emit(event("a"));
        }
        order.end();
        assert_eq!((names(&sink).len(), sink.0.lock().unwrap().1), (WAITING_MAX, 3));
    }
}
