//! Whose turn it is to receive calls: that of one thread at a time.
//!
//! Waking another thread for each call would take as long as the call. So the thread whose turn it is goes on after each
//! call, and while there are calls, another one looks now and then whether it hangs in one, and takes the turn then.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A call that takes longer loses the turn.
const STALLED: Duration = Duration::from_millis(5);
/// Looks without a new call between them, after which nobody looks any more.
const QUIET_LOOKS: u32 = 20;

/// See the module.
#[derive(Debug)]
pub struct Turn {
    // Number of the call that is handled by the thread whose turn it is; 0 for none. Who changes it from a number to 0
    // has the turn: that thread when it is done, or the one that found it hanging.
    call: AtomicU64,
    calls: AtomicU64,
    watched: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    // It is nobody's turn.
    free: bool,
    watching: bool,
    ended: bool,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            call: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            watched: AtomicBool::new(false),
            state: Mutex::new(State { free: true, watching: false, ended: false }),
            changed: Condvar::new(),
        }
    }
}

impl Turn {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn. False: there is nothing more to receive.
    pub fn take(&self) -> bool {
        let mut state = self.lock();
        loop {
            if state.ended {
                return false;
            }
            if state.free {
                state.free = false;
                if self.watched.load(SeqCst) && !state.watching {
                    // It was this one that looked.
                    self.changed.notify_one();
                }
                return true;
            }
            if self.watched.load(SeqCst) && !state.watching {
                state.watching = true;
                state = self.watch(state);
                state.watching = false;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    // Frees the turn when a call is handled for longer than it takes to see it twice. Returns then, or when there were no
    // calls for a while.
    fn watch<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let mut calls = self.calls.load(SeqCst);
        let mut quiet = 0;
        while !state.ended && !state.free {
            let call = self.call.load(SeqCst);
            let waited = self.changed.wait_timeout(state, STALLED);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if !timeout.timed_out() {
                continue;
            }
            if call != 0 && self.call.compare_exchange(call, 0, SeqCst, SeqCst).is_ok() {
                state.free = true;
                break;
            }
            let now = self.calls.load(SeqCst);
            quiet = if now == calls { quiet + 1 } else { 0 };
            calls = now;
            if quiet >= QUIET_LOOKS {
                self.watched.store(false, SeqCst);
                // A call that began at this moment may have seen that somebody looks.
                if self.calls.load(SeqCst) == calls && self.call.load(SeqCst) == 0 {
                    break;
                }
                self.watched.store(true, SeqCst);
                quiet = 0;
            }
        }
        state
    }

    /// The thread whose turn it is begins to handle a call. Gives its number.
    pub fn begin(&self) -> u64 {
        let call = self.calls.fetch_add(1, SeqCst) + 1;
        self.call.store(call, SeqCst);
        if !self.watched.load(SeqCst) {
            let _state = self.lock();
            self.watched.store(true, SeqCst);
            self.changed.notify_one();
        }
        call
    }

    /// It was handled. True: it is still this thread's turn.
    pub fn done(&self, call: u64) -> bool {
        self.call.compare_exchange(call, 0, SeqCst, SeqCst).is_ok()
    }

    /// The thread whose turn it is gives it to another one.
    pub fn pass(&self) {
        self.lock().free = true;
        // Whoever is woken takes it.
        self.changed.notify_one();
    }

    /// Sends all threads away.
    pub fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc;

    // Threads that say when they have the turn, and handle a call until they are told that it is done.
    fn thread(turn: &Arc<Turn>) -> (mpsc::Receiver<&'static str>, mpsc::Sender<()>) {
        let (says, heard) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        let turn = Arc::clone(turn);
        std::thread::spawn(move || {
            while turn.take() {
                loop {
                    says.send("turn").unwrap();
                    let call = turn.begin();
                    if wait.recv().is_err() {
                        return;
                    }
                    if !turn.done(call) {
                        says.send("lost").unwrap();
                        break;
                    }
                }
            }
            says.send("end").unwrap();
        });
        (heard, go)
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn a_thread_that_hangs_loses_the_turn_and_waits_for_it_again() {
        let turn = Arc::new(Turn::default());
        let (first, first_go) = thread(&turn);
        assert_eq!(first.recv_timeout(PATIENCE), Ok("turn"));
        let (second, second_go) = thread(&turn);
        // The first one hangs in its call.
        assert_eq!(second.recv_timeout(PATIENCE), Ok("turn"));
        first_go.send(()).unwrap();
        assert_eq!(first.recv_timeout(PATIENCE), Ok("lost"));
        // Now the second one hangs.
        assert_eq!(first.recv_timeout(PATIENCE), Ok("turn"));
        turn.end();
        second_go.send(()).unwrap();
        assert_eq!(second.recv_timeout(PATIENCE), Ok("lost"));
        assert_eq!(second.recv_timeout(PATIENCE), Ok("end"));
        drop(first_go);
    }

    #[test]
    fn a_thread_that_makes_a_pause_keeps_the_turn_and_one_that_hangs_after_it_does_not() {
        let turn = Arc::new(Turn::default());
        assert!(turn.take());
        let (second, _go) = thread(&turn);
        // So long that nobody looks any more.
        std::thread::sleep(STALLED * (QUIET_LOOKS + 10));
        assert!(second.try_recv().is_err());
        let call = turn.begin();
        assert_eq!(second.recv_timeout(PATIENCE), Ok("turn"));
        assert!(!turn.done(call));
    }

    #[test]
    fn a_thread_that_is_quick_keeps_the_turn_however_many_calls_there_are() {
        let turn = Arc::new(Turn::default());
        assert!(turn.take());
        let (second, go) = thread(&turn);
        let mut lost = 0;
        for _ in 0..200_000 {
            let call = turn.begin();
            if !turn.done(call) {
                // This thread was interrupted for that long.
                lost += 1;
                go.send(()).unwrap();
                assert!(turn.take());
            }
        }
        assert!(lost < 100, "{lost}");
        assert!(second.try_iter().filter(|said| *said == "turn").count() <= 2 * lost);
    }

    #[test]
    fn a_turn_that_is_passed_is_another_threads() {
        let turn = Arc::new(Turn::default());
        assert!(turn.take());
        let (second, _go) = thread(&turn);
        turn.pass();
        assert_eq!(second.recv_timeout(PATIENCE), Ok("turn"));
    }

    #[test]
    fn who_gets_a_turn_that_is_passed_is_looked_after_by_another() {
        for _ in 0..20 {
            let turn = Arc::new(Turn::default());
            assert!(turn.take());
            let (second, second_go) = thread(&turn);
            let (third, third_go) = thread(&turn);
            let call = turn.begin();
            // One of them looks by now, and the other one waits.
            std::thread::sleep(STALLED / 2);
            assert!(turn.done(call));
            turn.pass();
            // Both get it: the first of them hangs in its call.
            assert_eq!(second.recv_timeout(PATIENCE), Ok("turn"));
            assert_eq!(third.recv_timeout(PATIENCE), Ok("turn"));
            turn.end();
            drop((second_go, third_go));
        }
    }
}
