//! What the gate tells about connections: questions' facts and events.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clawsec_core::EventSink;
use clawsec_proto as pb;

use crate::bpf::Origin;
use crate::request::{Seen, Sight};
use crate::table::Destination;

/// Longest host name, message or path that is passed on from a sandbox.
const LONGEST_TEXT: usize = 1024;

/// The process behind an origin, with what can be read about it now. It may have ended or run another image since.
pub(crate) fn process(origin: &Origin) -> pb::Process {
    let executable = std::fs::read_link(format!("/proc/{}/exe", origin.pid));
    let executable = executable.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    pb::Process {
        pid: origin.pid,
        sandbox_pid: sandbox_pid(origin.pid).unwrap_or(0),
        uid: origin.uid,
        gid: origin.gid,
        executable: shorten(executable),
        comm: origin.comm.clone(),
        ..Default::default()
    }
}

/// The pid in the innermost pid namespace: the last of the line `NSpid` (proc_pid_status(5)).
fn sandbox_pid(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

fn shorten(mut text: String) -> String {
    if text.len() > LONGEST_TEXT {
        let end = (0..=LONGEST_TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// The action that a connection is, or one request of it.
pub(crate) fn connection(
    destination: &Destination,
    port: u16,
    sight: &Sight,
    rule: &str,
) -> pb::NetworkAction {
    let observation = &sight.observation;
    pb::NetworkAction {
        observed_host: observation.host().unwrap_or_default().to_owned(),
        ..seen(destination, port, &sight.seen(), rule)
    }
}

/// As [`connection`], when the host inside is not known any more.
pub(crate) fn seen(destination: &Destination, port: u16, seen: &Seen, rule: &str) -> pb::NetworkAction {
    let (host, address) = match destination {
        Destination::Name(name) => (name.to_string(), String::new()),
        Destination::Address(address) => (String::new(), address.to_string()),
    };
    let request = seen.request();
    pb::NetworkAction {
        protocol: pb::NetworkProtocol::Tcp.into(),
        host,
        address,
        port: port.into(),
        observed_protocol: seen.protocol().into(),
        rule: rule.to_owned(),
        http_method: shorten(request.map_or_else(String::new, |request| request.method.clone())),
        http_path: request.map_or_else(String::new, |request| request.path.clone()),
        ..Default::default()
    }
}

/// Emits events of one sandbox.
#[derive(Clone)]
pub(crate) struct Reporter {
    sandbox: Arc<str>,
    sink: Arc<dyn EventSink>,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reporter").field("sandbox", &self.sandbox).finish_non_exhaustive()
    }
}

impl Reporter {
    pub(crate) fn new(sandbox: &str, sink: Arc<dyn EventSink>) -> Self {
        Self { sandbox: sandbox.into(), sink }
    }

    /// A decision that was carried out.
    pub(crate) fn decision(&self, subject: &str, process: Option<pb::Process>, decision: pb::DecisionEvent) {
        self.sink.emit(pb::Event {
            sandbox: self.sandbox.to_string(),
            subject: subject.to_owned(),
            process,
            kind: Some(pb::event::Kind::Decision(decision)),
            ..Default::default()
        });
    }

    /// Events that could not be made.
    pub(crate) fn lost(&self, way: &'static str, count: u64) {
        self.sink.lost(way, count);
    }
}

/// Holds back events that a sandbox could produce without end: each key once a second, and at most
/// [`Throttle::MOST_KEYS`] keys a second. What was held back is counted and told with the next one.
#[derive(Debug)]
pub(crate) struct Throttle<K> {
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    since: Instant,
    seen: HashMap<K, u64>,
    held_back: u64,
}

impl<K: Eq + Hash> Throttle<K> {
    /// Different keys that pass within one second.
    pub(crate) const MOST_KEYS: usize = 64;
    const WINDOW: Duration = Duration::from_secs(1);

    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { since: Instant::now(), seen: HashMap::new(), held_back: 0 }) }
    }

    /// `Some(n)`: report this one, and that `n` others were held back before it.
    pub(crate) fn pass(&self, key: K) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.since.elapsed() >= Self::WINDOW {
            state.since = Instant::now();
            state.seen.clear();
        }
        let full = state.seen.len() >= Self::MOST_KEYS;
        match state.seen.get_mut(&key) {
            None if !full => {
                state.seen.insert(key, 0);
                Some(std::mem::take(&mut state.held_back))
            }
            _ => {
                state.held_back += 1;
                None
            }
        }
    }

    /// What was held back and not told yet.
    pub(crate) fn take_held_back(&self) -> u64 {
        std::mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).held_back)
    }
}

/// Adds the number of events held back to a message.
pub(crate) fn with_held_back(message: &str, held_back: u64) -> String {
    match held_back {
        0 => message.to_owned(),
        count => format!("{message} ({count} more since the last report)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_once_and_counted() {
        let throttle = Throttle::new();
        assert_eq!(throttle.pass("a"), Some(0));
        assert_eq!(throttle.pass("a"), None);
        assert_eq!(throttle.pass("a"), None);
        assert_eq!(throttle.pass("b"), Some(2));
        assert_eq!(throttle.take_held_back(), 0);
    }

    #[test]
    fn many_different_keys_are_a_flood_too() {
        let throttle = Throttle::new();
        let passed = (0..1000).filter(|key| throttle.pass(*key).is_some()).count();
        assert_eq!(passed, Throttle::<i32>::MOST_KEYS);
        assert_eq!(throttle.take_held_back(), 1000 - 64);
    }

    #[test]
    fn text_is_cut_at_a_character() {
        assert_eq!(shorten("ü".repeat(600)).len(), LONGEST_TEXT);
        assert_eq!(shorten(format!("a{}", "ü".repeat(600))).len(), LONGEST_TEXT - 1);
    }
}
