//! How many questions of a sandbox have no answer yet. Each keeps five descriptors or so, which all sandboxes share, so who
//! asks faster than he is answered waits a little before each further call.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// More than these make who receives the calls wait.
const MANY: usize = 1024;
/// For as long at most: what needs no question goes on, slowly, also while nobody answers.
const PAUSE: Duration = Duration::from_millis(100);

/// The unanswered questions of one sandbox.
#[derive(Debug, Default)]
pub(crate) struct Asking {
    count: Mutex<usize>,
    fewer: Condvar,
}

/// One of them, until this is dropped.
#[derive(Debug)]
pub(crate) struct Unanswered(Arc<Asking>);

impl Asking {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more.
    pub fn begin(self: &Arc<Self>) -> Unanswered {
        *self.lock() += 1;
        Unanswered(Arc::clone(self))
    }

    /// Waits until there are few. For the thread that receives the calls.
    pub fn pause(&self) {
        let waited = self.fewer.wait_timeout_while(self.lock(), PAUSE, |count| *count > MANY);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.fewer.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn who_has_many_unanswered_questions_waits_for_an_answer_and_not_for_ever() {
        let asking = Arc::new(Asking::default());
        let mut open: Vec<_> = (0..MANY).map(|_| asking.begin()).collect();
        asking.pause();
        open.push(asking.begin());
        let began = Instant::now();
        asking.pause();
        assert!(began.elapsed() >= PAUSE);
        let waiting = std::thread::spawn({
            let asking = Arc::clone(&asking);
            move || asking.pause()
        });
        drop(open.pop());
        waiting.join().unwrap();
        drop(open);
        assert_eq!(*asking.lock(), 0);
    }
}
