//! How much of what a caller writes goes into the audit.
//!
//! Arguments and names of variables are as long as a caller likes (128 KiB each), and a call that is denied costs it next to
//! nothing: in a loop, they would fill the disk and keep everybody's events waiting. So each sandbox has an allowance of
//! bytes, which comes back slowly. An exec beyond it is told with as much as the kernel's own report of an image has.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clawsec_core::pb;

/// Bytes that are told of any exec, of its arguments and of its names of variables each.
const SHORT: usize = 8 << 10;
/// Bytes beyond these that a sandbox may have told at once, and that it gets back in a second.
const BURST: f64 = 4.0 * 1024.0 * 1024.0;
const RATE: f64 = 64.0 * 1024.0;
/// Sandboxes after which those that have all of their allowance are forgotten.
const COLLECT: usize = 64;

/// The allowances of all sandboxes.
#[derive(Debug, Default)]
pub struct Allowances(Mutex<HashMap<String, Left>>);

#[derive(Debug, Clone, Copy)]
struct Left {
    bytes: f64,
    at: Instant,
}

impl Left {
    fn now(self, now: Instant) -> f64 {
        (self.bytes + RATE * now.saturating_duration_since(self.at).as_secs_f64()).min(BURST)
    }
}

impl Allowances {
    /// Cuts what an event tells of an exec, where its sandbox has no allowance left for all of it, and marks it.
    pub fn shorten(&self, event: &mut pb::Event) {
        let decision = match &mut event.kind {
            Some(pb::event::Kind::Decision(decision)) => decision,
            Some(pb::event::Kind::Exec(pb::ExecEvent { decision: Some(decision), .. })) => decision,
            _ => return,
        };
        let Some(pb::decision_event::Action::Exec(action)) = &mut decision.action else { return };
        let lists = [&mut action.argv, &mut action.environment_names];
        let beyond = lists.iter().map(|list| length(list).saturating_sub(SHORT)).sum();
        if beyond == 0 || self.take(&event.sandbox, beyond) {
            return;
        }
        for list in lists {
            cut(list);
        }
        decision.cut = true;
    }

    fn take(&self, sandbox: &str, bytes: usize) -> bool {
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= COLLECT {
            all.retain(|_, left| left.now(now) < BURST);
        }
        let left = all.get(sandbox).map_or(BURST, |left| left.now(now));
        let taken = left >= bytes as f64;
        let bytes = if taken { left - bytes as f64 } else { left };
        all.insert(sandbox.to_owned(), Left { bytes, at: now });
        taken
    }
}

fn length(list: &[String]) -> usize {
    // Each has some bytes of its own, in the message as in memory.
    list.iter().map(|text| text.len() + 1).sum()
}

// The last one that is shown may be cut.
fn cut(list: &mut Vec<String>) {
    let mut left = SHORT;
    let mut whole = 0;
    for text in list.iter_mut() {
        whole += 1;
        if text.len() + 1 >= left {
            text.truncate(text.floor_char_boundary(left - 1));
            break;
        }
        left -= text.len() + 1;
    }
    list.truncate(whole);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sandbox: &str, argv: Vec<String>) -> pb::Event {
        let action = pb::ExecAction { argv, argv_hash: "hash".into(), ..Default::default() };
        let action = Some(pb::decision_event::Action::Exec(action));
        let kind = pb::event::Kind::Decision(pb::DecisionEvent { action, ..Default::default() });
        pb::Event { sandbox: sandbox.into(), kind: Some(kind), ..Default::default() }
    }

    fn told(event: &pb::Event) -> (&pb::ExecAction, bool) {
        match &event.kind {
            Some(pb::event::Kind::Decision(decision)) => match &decision.action {
                Some(pb::decision_event::Action::Exec(action)) => (action, decision.cut),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn long_arguments_are_told_until_the_allowance_of_their_sandbox_is_used_up() {
        let all = Allowances::default();
        let argv = || vec!["ls".to_owned(), "é".repeat(60_000)];
        let mut bytes = 0;
        let mut whole = 0;
        for _ in 0..1000 {
            let mut event = event("one", argv());
            all.shorten(&mut event);
            let (action, is_cut) = told(&event);
            assert_eq!((action.argv.len(), action.argv_hash.as_str()), (2, "hash"));
            assert_eq!(is_cut, action.argv != argv());
            assert!(argv()[1].starts_with(&action.argv[1]));
            whole += u32::from(!is_cut);
            bytes += action.argv[1].len();
        }
        assert!((30..500).contains(&whole), "{whole}");
        assert!(bytes < 1000 * (SHORT + 100) + 500 * 120_000);
        // Another sandbox has its own, and a short one needs none.
        for (sandbox, argv) in [("two", argv()), ("one", vec!["ls".to_owned()])] {
            let mut event = event(sandbox, argv.clone());
            all.shorten(&mut event);
            assert_eq!((&told(&event).0.argv, told(&event).1), (&argv, false));
        }
    }

    #[test]
    fn many_short_ones_are_as_long_as_one_long_one() {
        let mut list = vec![String::new(); 100_000];
        cut(&mut list);
        assert_eq!(list.len(), SHORT);
        let mut list = vec!["a".repeat(SHORT - 1)];
        cut(&mut list);
        assert_eq!(list, ["a".repeat(SHORT - 1)]);
    }

    #[test]
    fn what_is_kept_in_mind_is_bounded() {
        let all = Allowances::default();
        for number in 0..1000 {
            assert!(all.take(&format!("sandbox-{number}"), 1));
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
        assert!(all.take("last", 1));
        assert!(all.0.lock().unwrap().len() <= COLLECT + 1);
    }
}
