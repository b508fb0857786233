//! Reporting what happened.

use clawsec_proto as pb;

/// Takes events. Never blocks: an event that cannot be kept is counted, and the count becomes an event.
pub trait EventSink: Send + Sync + 'static {
    /// Takes one event; the sink fills `sequence`, `policy_hash`, and `time_us` when it is 0.
    fn emit(&self, event: pb::Event);

    /// Fills in what an event has of the moment at which it happens, its `policy_hash`, where it is emitted later.
    fn stamp(&self, _event: &mut pb::Event) {}

    /// Counts events that were lost before they reached the sink, by the way they were lost.
    fn lost(&self, way: &'static str, count: u64);

    /// As [`EventSink::lost`], of events that were lost between two moments (microseconds since the Unix epoch).
    fn lost_between(&self, way: &'static str, count: u64, _since_us: u64, _until_us: u64) {
        self.lost(way, count);
    }
}
