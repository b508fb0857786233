use std::time::Duration;

use clawsec_core::Outcome;

use super::*;
use crate::conversation::ANSWER_WITHIN;
use crate::spool::{Bounds, Spool};
use crate::tables::{PolicyRecord, SwapError};

struct World {
    broker: Broker,
    tables: Arc<Tables>,
    spool: Arc<Spool>,
}

const GRACE_MS: u32 = 700;

fn world() -> World {
    let tables = Arc::new(Tables::default());
    tables.insert("box", PolicyRecord { epoch: 1, hash: String::new(), supervisor_grace_ms: GRACE_MS });
    let spool = Arc::new(Spool::new(Arc::clone(&tables), Bounds::default()));
    let broker = Broker::new(Arc::clone(&tables), Arc::clone(&spool) as _, Handle::current());
    World { broker, tables, spool }
}

fn question() -> pb::Question {
    pb::Question { sandbox: "box".into(), ..Default::default() }
}

fn answer(question_id: u64, verdict: pb::Verdict) -> pb::Decision {
    pb::Decision { question_id, verdict: verdict.into(), epoch: 1, ..Default::default() }
}

fn hold(question_id: u64, within: Duration) -> pb::Decision {
    pb::Decision {
        hold_id: "h1".into(),
        deadline_us: now_us() + u64::try_from(within.as_micros()).unwrap(),
        ..answer(question_id, pb::Verdict::Hold)
    }
}

async fn asked(messages: &mut mpsc::Receiver<pb::LoaderMessage>) -> pb::Question {
    match messages.recv().await.unwrap().message {
        Some(ToSupervisor::Question(question)) => question,
        other => panic!("not a question: {other:?}"),
    }
}

fn denied(outcome: Outcome) -> String {
    match outcome {
        Outcome::Deny(decision) => decision.message,
        other => panic!("not denied: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_allowed_question_is_allowed_and_a_denied_one_denied() {
    let world = world();
    let (stream, mut messages) = world.broker.attach();
    for (verdict, allowed) in [
        (pb::Verdict::Allow, true),
        (pb::Verdict::Log, true),
        (pb::Verdict::Deny, false),
        (pb::Verdict::Ask, false),
        (pb::Verdict::Unspecified, false),
    ] {
        let mut inquiry = world.broker.ask(question());
        let question = asked(&mut messages).await;
        assert_eq!((question.id, question.epoch), (inquiry.question_id, 1));
        assert!(question.asked_us > 0 && !question.resent);
        world.broker.decide(stream, answer(question.id, verdict));
        let outcome = inquiry.next().await;
        assert_eq!(matches!(outcome, Outcome::Allow(_)), allowed, "{verdict:?}");
        tokio::task::yield_now().await;
        // What the loader made of an answer that is none, told to the supervisor.
        while messages.try_recv().is_ok() {}
    }
    tokio::task::yield_now().await;
    assert_eq!(world.broker.open_questions(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_supervisor_a_question_waits_its_grace_and_is_denied() {
    let world = world();
    let start = tokio::time::Instant::now();
    let mut inquiry = world.broker.ask(question());
    assert_eq!(denied(inquiry.next().await), "the supervisor did not answer within 700 ms");
    assert_eq!(start.elapsed(), Duration::from_millis(700));
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_comes_within_the_grace_is_asked() {
    let world = world();
    let mut inquiry = world.broker.ask(question());
    tokio::time::sleep(Duration::from_millis(600)).await;
    let (stream, mut messages) = world.broker.attach();
    let question = asked(&mut messages).await;
    assert!(!question.resent, "it was never sent before");
    tokio::time::sleep(Duration::from_millis(600)).await;
    world.broker.decide(stream, answer(question.id, pb::Verdict::Allow));
    assert!(matches!(inquiry.next().await, Outcome::Allow(_)));
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_hangs_is_a_denial_and_is_told_so() {
    let world = world();
    let (_, mut messages) = world.broker.attach();
    let start = tokio::time::Instant::now();
    let mut inquiry = world.broker.ask(question());
    assert_eq!(denied(inquiry.next().await), "the supervisor did not answer within 10000 ms");
    assert_eq!(start.elapsed(), ANSWER_WITHIN);
    asked(&mut messages).await;
    let Some(ToSupervisor::RequesterGone(gone)) = messages.recv().await.unwrap().message else {
        panic!("not told");
    };
    assert_eq!(gone.question_id, inquiry.question_id);
}

#[tokio::test(start_paused = true)]
async fn a_second_stream_takes_over_and_gets_the_unanswered_question_again() {
    let world = world();
    let (first, mut old) = world.broker.attach();
    let mut inquiry = world.broker.ask(question());
    asked(&mut old).await;
    let (second, mut new) = world.broker.attach();
    let again = asked(&mut new).await;
    assert!(again.resent && again.hold_id.is_empty());
    assert!(old.recv().await.is_none(), "the old stream ends");
    world.broker.decide(first, answer(again.id, pb::Verdict::Allow));
    world.broker.decide(second, answer(again.id, pb::Verdict::Deny));
    assert!(matches!(inquiry.next().await, Outcome::Deny(_)), "the old stream decides nothing");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_replaced_stream_does_not_end_the_new_one() {
    let world = world();
    let (first, _old) = world.broker.attach();
    let (second, mut new) = world.broker.attach();
    world.broker.detach(first);
    let mut inquiry = world.broker.ask(question());
    let question = asked(&mut new).await;
    world.broker.decide(second, answer(question.id, pb::Verdict::Allow));
    assert!(matches!(inquiry.next().await, Outcome::Allow(_)));
}

#[tokio::test(start_paused = true)]
async fn a_question_that_outlives_five_supervisors_is_denied() {
    let world = world();
    let mut inquiry = world.broker.ask(question());
    for _ in 0..5 {
        let (stream, mut messages) = world.broker.attach();
        asked(&mut messages).await;
        world.broker.detach(stream);
        tokio::task::yield_now().await;
    }
    let _stream = world.broker.attach();
    assert_eq!(denied(inquiry.next().await), "5 supervisors in a row ended before they answered");
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_an_older_epoch_is_void_and_the_question_is_asked_again() {
    let world = world();
    let (stream, mut messages) = world.broker.attach();
    let mut inquiry = world.broker.ask(question());
    let question = asked(&mut messages).await;
    world.tables.swap::<SwapError>("box", 2, "", || Ok(())).unwrap();
    world.broker.decide(stream, answer(question.id, pb::Verdict::Allow));
    let again = asked(&mut messages).await;
    assert_eq!((again.id, again.epoch), (question.id, 2));
    let fresh = pb::Decision { epoch: 2, ..answer(question.id, pb::Verdict::Allow) };
    world.broker.decide(stream, fresh);
    assert!(matches!(inquiry.next().await, Outcome::Allow(_)));
}

#[tokio::test(start_paused = true)]
async fn void_answers_end_in_a_denial() {
    let world = world();
    let (stream, mut messages) = world.broker.attach();
    let mut inquiry = world.broker.ask(question());
    world.tables.swap::<SwapError>("box", 2, "", || Ok(())).unwrap();
    for _ in 0..4 {
        let question = asked(&mut messages).await;
        world.broker.decide(stream, answer(question.id, pb::Verdict::Allow));
    }
    let why = denied(inquiry.next().await);
    assert!(why.contains("under an older policy than epoch 2"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_hold_engages_is_answered_and_settles() {
    let world = world();
    let (stream, mut messages) = world.broker.attach();
    let mut inquiry = world.broker.ask(question());
    let id = asked(&mut messages).await.id;
    world.broker.decide(stream, hold(id, Duration::from_secs(60)));
    assert!(matches!(inquiry.next().await, Outcome::Hold(decision) if decision.hold_id == "h1"));
    let facts = pb::ExecAction { executable: "/real".into(), ..Default::default() };
    inquiry.engaged(Some(facts.clone()));
    let Some(ToSupervisor::Held(held)) = messages.recv().await.unwrap().message else {
        panic!("not held");
    };
    assert_eq!((held.hold_id.as_str(), held.exec), ("h1", Some(facts)));
    world.broker.decide(stream, answer(id, pb::Verdict::Allow));
    assert!(matches!(inquiry.next().await, Outcome::Allow(decision) if decision.hold_id == "h1"));
    inquiry.settled(pb::Verdict::Allow, 42);
    let Some(ToSupervisor::Settled(settled)) = messages.recv().await.unwrap().message else {
        panic!("not settled");
    };
    assert_eq!((settled.verdict(), settled.resumed_us), (pb::Verdict::Allow, 42));
    assert_eq!(settled.hold_id, "h1");
    tokio::task::yield_now().await;
    assert_eq!(world.broker.open_questions(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_hold_expires_two_seconds_after_its_deadline() {
    let world = world();
    let (stream, mut messages) = world.broker.attach();
    let start = tokio::time::Instant::now();
    let mut inquiry = world.broker.ask(question());
    let id = asked(&mut messages).await.id;
    world.broker.decide(stream, hold(id, Duration::from_secs(60)));
    assert!(matches!(inquiry.next().await, Outcome::Hold(_)));
    assert_eq!(denied(inquiry.next().await), "the hold expired");
    let waited = start.elapsed();
    assert!(waited > Duration::from_secs(61) && waited < Duration::from_secs(63), "{waited:?}");
    inquiry.settled(pb::Verdict::Deny, 1);
    assert!(matches!(
        messages.recv().await.unwrap().message,
        Some(ToSupervisor::Settled(settled)) if settled.verdict() == pb::Verdict::Deny
    ));
}

#[tokio::test(start_paused = true)]
async fn a_hold_outlives_the_supervisor_and_is_put_to_the_next_with_its_real_facts() {
    let world = world();
    let (stream, mut messages) = world.broker.attach();
    let mut inquiry = world.broker.ask(question());
    let id = asked(&mut messages).await.id;
    world.broker.decide(stream, hold(id, Duration::from_secs(600)));
    assert!(matches!(inquiry.next().await, Outcome::Hold(_)));
    inquiry.engaged(Some(pb::ExecAction { executable: "/real".into(), ..Default::default() }));
    tokio::task::yield_now().await;
    world.broker.detach(stream);
    let nothing = tokio::time::timeout(Duration::from_secs(300), inquiry.next()).await;
    assert!(nothing.is_err(), "the hold stays held");
    let (stream, mut messages) = world.broker.attach();
    let again = asked(&mut messages).await;
    assert!(again.resent);
    assert_eq!(again.hold_id, "h1");
    assert!(matches!(again.action, Some(pb::question::Action::Exec(exec)) if exec.executable == "/real"));
    // It may confirm the hold it was told of, once.
    world.broker.decide(stream, hold(id, Duration::from_secs(600)));
    tokio::task::yield_now().await;
    world.broker.decide(stream, answer(id, pb::Verdict::Allow));
    assert!(matches!(inquiry.next().await, Outcome::Allow(_)));
}

#[tokio::test(start_paused = true)]
async fn a_second_hold_is_a_denial() {
    let world = world();
    let (stream, mut messages) = world.broker.attach();
    let mut inquiry = world.broker.ask(question());
    let id = asked(&mut messages).await.id;
    for _ in 0..2 {
        world.broker.decide(stream, hold(id, Duration::from_secs(60)));
    }
    assert!(matches!(inquiry.next().await, Outcome::Hold(_)));
    assert_eq!(denied(inquiry.next().await), "the supervisor answered a hold with another hold");
}

#[tokio::test(start_paused = true)]
async fn a_hold_without_an_id_is_a_denial() {
    let world = world();
    let (stream, mut messages) = world.broker.attach();
    let mut inquiry = world.broker.ask(question());
    let id = asked(&mut messages).await.id;
    world.broker.decide(stream, answer(id, pb::Verdict::Hold));
    assert_eq!(denied(inquiry.next().await), "the supervisor's hold had no id");
}

#[tokio::test(start_paused = true)]
async fn a_requester_that_dies_is_told_and_its_hold_is_told_even_to_the_next_supervisor() {
    let world = world();
    let (stream, mut messages) = world.broker.attach();
    let inquiry = world.broker.ask(question());
    asked(&mut messages).await;
    drop(inquiry);
    assert!(matches!(
        messages.recv().await.unwrap().message,
        Some(ToSupervisor::RequesterGone(gone)) if gone.hold_id.is_empty()
    ));
    let mut inquiry = world.broker.ask(question());
    let id = asked(&mut messages).await.id;
    world.broker.decide(stream, hold(id, Duration::from_secs(60)));
    assert!(matches!(inquiry.next().await, Outcome::Hold(_)));
    world.broker.detach(stream);
    inquiry.gone("it was killed");
    tokio::task::yield_now().await;
    let (_, mut messages) = world.broker.attach();
    let Some(ToSupervisor::RequesterGone(gone)) = messages.recv().await.unwrap().message else {
        panic!("not told");
    };
    assert_eq!((gone.question_id, gone.hold_id.as_str(), gone.why.as_str()), (id, "h1", "it was killed"));
    assert_eq!(world.broker.open_questions(), 0);
}

#[tokio::test(start_paused = true)]
async fn questions_of_one_sandbox_are_bounded_and_the_loss_is_an_event() {
    let world = world();
    let mut open: Vec<_> = (0..OPEN_QUESTIONS).map(|_| world.broker.ask(question())).collect();
    let mut refused = world.broker.ask(question());
    assert_eq!(denied(refused.next().await), "too many questions of this sandbox are open");
    let batch = world.spool.reader().next().await.unwrap();
    assert!(
        matches!(&batch.events[0].kind, Some(pb::event::Kind::Lost(lost)) if lost.way == "questions-full")
    );
    open.pop();
    tokio::task::yield_now().await;
    let mut taken = world.broker.ask(question());
    assert!(denied(taken.next().await).starts_with("the supervisor did not answer"));
}

#[tokio::test(start_paused = true)]
async fn questions_of_one_sandbox_are_bounded_by_their_size_too_and_another_sandbox_is_not() {
    let world = world();
    let large = || {
        let argv = vec!["x".repeat(1024 * 1024)];
        let exec = pb::ExecAction { argv, ..Default::default() };
        pb::Question { action: Some(pb::question::Action::Exec(exec)), ..question() }
    };
    let fits = OPEN_BYTES / (1024 * 1024) - 1;
    let mut open: Vec<_> = (0..fits).map(|_| world.broker.ask(large())).collect();
    let mut refused = world.broker.ask(large());
    assert_eq!(denied(refused.next().await), "too many questions of this sandbox are open");
    let record = world.tables.get("box").unwrap();
    world.tables.insert("other", record);
    let mut other = world.broker.ask(pb::Question { sandbox: "other".into(), ..large() });
    assert!(denied(other.next().await).starts_with("the supervisor did not answer"));
    open.pop();
    tokio::task::yield_now().await;
    let mut taken = world.broker.ask(large());
    assert!(denied(taken.next().await).starts_with("the supervisor did not answer"));
}

fn put(messages: &mut mpsc::Receiver<pb::LoaderMessage>) -> Vec<(String, u64)> {
    let mut put = Vec::new();
    while let Ok(message) = messages.try_recv() {
        if let Some(ToSupervisor::Question(question)) = message.message {
            put.push((question.sandbox, question.id));
        }
    }
    put
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_one_sandbox_waits_for_its_own_answers_and_another_sandbox_does_not() {
    let world = world();
    let record = world.tables.get("box").unwrap();
    world.tables.insert("other", record);
    let (stream, mut messages) = world.broker.attach();
    let mut storm: Vec<_> = (0..PUT_QUESTIONS + 4).map(|_| world.broker.ask(question())).collect();
    let mut other = world.broker.ask(pb::Question { sandbox: "other".into(), ..question() });
    let first = put(&mut messages);
    let of_box = first.iter().filter(|(sandbox, _)| sandbox == "box").count();
    assert_eq!((of_box, first.len()), (PUT_QUESTIONS, PUT_QUESTIONS + 1));
    world.broker.decide(stream, answer(other.question_id, pb::Verdict::Allow));
    assert!(matches!(other.next().await, Outcome::Allow(_)));
    assert!(put(&mut messages).is_empty());

    // An answer, a hold, an asker that is gone: each makes room for one, in the order in which they came. An answer that
    // comes twice makes none.
    world.broker.decide(stream, answer(storm[0].question_id, pb::Verdict::Allow));
    world.broker.decide(stream, hold(storm[1].question_id, Duration::from_secs(60)));
    world.broker.decide(stream, answer(storm[0].question_id, pb::Verdict::Allow));
    // One that waits and is gone is not put at all.
    storm.remove(PUT_QUESTIONS + 2).gone("it was killed");
    storm.remove(2).gone("it was killed");
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let ids: Vec<_> = put(&mut messages).into_iter().map(|(_, id)| id).collect();
    let expected: Vec<_> = storm[PUT_QUESTIONS - 1..].iter().map(|inquiry| inquiry.question_id).collect();
    assert_eq!(ids, expected);

    // The next supervisor is put all that is held, which it may know and not answer, and the others as far as there is room.
    for inquiry in &storm[2..12] {
        world.broker.decide(stream, hold(inquiry.question_id, Duration::from_secs(60)));
    }
    storm.extend((0..PUT_QUESTIONS).map(|_| world.broker.ask(question())));
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let (stream, mut messages) = world.broker.attach();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let put = put(&mut messages);
    assert_eq!(put.len(), 11 + PUT_QUESTIONS);
    for inquiry in &storm[1..12] {
        assert!(put.contains(&("box".into(), inquiry.question_id)));
    }
    for inquiry in &storm {
        world.broker.decide(stream, answer(inquiry.question_id, pb::Verdict::Deny));
    }
    for inquiry in &mut storm[1..] {
        while !matches!(inquiry.next().await, Outcome::Deny(_)) {}
    }
}

#[tokio::test(start_paused = true)]
async fn large_questions_are_put_one_by_one() {
    let world = world();
    let (stream, mut messages) = world.broker.attach();
    let large = || {
        let argv = vec!["x".repeat(PUT_BYTES / 2 + 1)];
        let exec = pb::ExecAction { argv, ..Default::default() };
        pb::Question { action: Some(pb::question::Action::Exec(exec)), ..question() }
    };
    let mut all: Vec<_> = (0..3).map(|_| world.broker.ask(large())).collect();
    for inquiry in &mut all {
        assert_eq!(put(&mut messages), [("box".to_owned(), inquiry.question_id)]);
        world.broker.decide(stream, answer(inquiry.question_id, pb::Verdict::Allow));
        assert!(matches!(inquiry.next().await, Outcome::Allow(_)));
    }
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.broker.open_questions(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_is_taken_down_has_its_questions_denied_and_gets_no_new_ones() {
    let world = world();
    let (_, _messages) = world.broker.attach();
    let mut inquiry = world.broker.ask(question());
    world.tables.remove("box");
    world.broker.close("box", "the sandbox was killed");
    assert_eq!(denied(inquiry.next().await), "the sandbox was killed");
    let mut late = world.broker.ask(question());
    assert_eq!(denied(late.next().await), "the sandbox is being taken down");
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_does_not_read_loses_its_stream() {
    let world = world();
    let (_, mut messages) = world.broker.attach();
    for _ in 0..STREAM_BUFFER {
        assert!(world.broker.shared.send(ToSupervisor::Held(pb::Held::default())));
    }
    let mut inquiry = world.broker.ask(question());
    assert_eq!(denied(inquiry.next().await), "the supervisor did not answer within 700 ms");
    while messages.recv().await.is_some() {}
}
