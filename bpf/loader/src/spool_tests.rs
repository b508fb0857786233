use super::*;
use crate::tables::PolicyRecord;

fn spool(events: usize) -> Arc<Spool> {
    let tables = Arc::new(Tables::default());
    tables.insert("box", PolicyRecord { epoch: 1, hash: "the hash".into(), supervisor_grace_ms: 0 });
    Arc::new(Spool::new(tables, Bounds { events, bytes: 1 << 20 }))
}

fn event(detail: &str) -> pb::Event {
    pb::Event {
        sandbox: "box".into(),
        kind: Some(pb::event::Kind::SandboxEvent(pb::SandboxEvent {
            detail: detail.into(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn sequences(batch: &pb::EventBatch) -> Vec<u64> {
    batch.events.iter().map(|event| event.sequence).collect()
}

fn lost_of(event: &pb::Event) -> Option<(String, u64)> {
    match &event.kind {
        Some(pb::event::Kind::Lost(lost)) => Some((lost.way.clone(), lost.count)),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn events_come_in_order_without_gaps_with_time_and_policy_hash() {
    let spool = spool(10);
    let mut reader = spool.reader();
    for i in 0..3 {
        spool.emit(event(&i.to_string()));
    }
    let batch = reader.next().await.unwrap();
    assert_eq!(sequences(&batch), [1, 2, 3]);
    assert!(batch.events.iter().all(|event| event.time_us > 0 && event.policy_hash == "the hash"));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_not_full_leaves_after_20_ms() {
    let spool = spool(10);
    let mut reader = spool.reader();
    spool.emit(event("a"));
    let start = tokio::time::Instant::now();
    let later = {
        let spool = Arc::clone(&spool);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            spool.emit(event("b"));
        })
    };
    assert_eq!(sequences(&reader.next().await.unwrap()), [1, 2]);
    assert_eq!(start.elapsed(), FLUSH_AFTER);
    later.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_batch_has_at_most_512_events_and_a_full_one_leaves_at_once() {
    let spool = spool(2000);
    for _ in 0..600 {
        spool.emit(event("x"));
    }
    let mut reader = spool.reader();
    let start = tokio::time::Instant::now();
    assert_eq!(reader.next().await.unwrap().events.len(), 512);
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(reader.next().await.unwrap().events.len(), 88);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_bounded_in_bytes() {
    let spool = Arc::new(Spool::new(Arc::default(), Bounds::default()));
    for _ in 0..5 {
        spool.emit(event(&"x".repeat(400 << 10)));
    }
    let mut reader = spool.reader();
    assert_eq!(sequences(&reader.next().await.unwrap()), [1, 2]);
    assert_eq!(sequences(&reader.next().await.unwrap()), [3, 4]);
    assert_eq!(sequences(&reader.next().await.unwrap()), [5]);
}

#[tokio::test(start_paused = true)]
async fn a_new_reader_gets_everything_that_is_not_acknowledged_and_the_old_one_ends() {
    let spool = spool(10);
    let mut first = spool.reader();
    for _ in 0..4 {
        spool.emit(event("x"));
    }
    assert_eq!(sequences(&first.next().await.unwrap()), [1, 2, 3, 4]);
    spool.acknowledge(2);
    let waiting = tokio::spawn(async move { first.next().await });
    tokio::task::yield_now().await;
    let mut second = spool.reader();
    assert_eq!(waiting.await.unwrap(), None);
    assert_eq!(sequences(&second.next().await.unwrap()), [3, 4]);
}

#[tokio::test(start_paused = true)]
async fn what_a_full_spool_drops_is_counted_and_told_before_what_follows() {
    let spool = spool(3);
    for _ in 0..8 {
        spool.emit(event("x"));
    }
    assert_eq!(spool.unacknowledged(), 3);
    let mut reader = spool.reader();
    assert_eq!(sequences(&reader.next().await.unwrap()), [1, 2, 3]);
    spool.acknowledge(3);
    spool.emit(event("after"));
    let batch = reader.next().await.unwrap();
    assert_eq!(sequences(&batch), [4, 5]);
    assert_eq!(lost_of(&batch.events[0]), Some(("spool-full".into(), 5)));
    assert_eq!(lost_of(&batch.events[1]), None);
}

#[tokio::test(start_paused = true)]
async fn losses_reported_by_gates_become_one_event_for_each_way() {
    let spool = spool(10);
    spool.lost("ring-full", 2);
    spool.lost("ring-full", 3);
    spool.lost("other", 1);
    spool.lost("nothing", 0);
    let batch = spool.reader().next().await.unwrap();
    let lost: Vec<_> = batch.events.iter().filter_map(lost_of).collect();
    assert_eq!(lost, [("other".into(), 1), ("ring-full".into(), 5)]);
}

#[tokio::test(start_paused = true)]
async fn the_spool_is_bounded_in_bytes() {
    let spool = Arc::new(Spool::new(Arc::default(), Bounds { events: 100, bytes: 1000 }));
    spool.emit(event(&"x".repeat(2000)));
    assert_eq!(spool.unacknowledged(), 0);
    spool.emit(event("small"));
    let batch = spool.reader().next().await.unwrap();
    assert_eq!(lost_of(&batch.events[0]), Some(("spool-full".into(), 1)));
    assert_eq!(sequences(&batch), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_of_what_does_not_exist_changes_nothing() {
    let spool = spool(10);
    spool.emit(event("x"));
    spool.acknowledge(99);
    assert_eq!(spool.unacknowledged(), 1);
    spool.acknowledge(1);
    spool.acknowledge(1);
    spool.acknowledge(0);
    assert_eq!(spool.unacknowledged(), 0);
}
