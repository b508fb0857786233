//! Which addresses an answer permits to dial: those that the rule opens which the answer names, whatever row asked.

mod common;

use clawsec_core::ask::Progress;
use clawsec_core::pb;
use clawsec_core::pb::Verdict::{Allow, Ask, Deny, Hold};
use common::http::{http, run};
use common::net::{begun, finish};
use common::play::{decision, progress};
use common::servers::PRIVATE;
use common::{World, range, row, table, world};

/// A row that opens the range of the private server.
fn opens(row: pb::NetworkRow) -> pb::NetworkRow {
    pb::NetworkRow { resolves_to: vec!["10.7.0.0/16".into()], ..row }
}

/// The supervisor's word that this rule decided.
fn by(rule: &str, verdict: pb::Verdict) -> pb::Decision {
    pb::Decision { rule: rule.into(), ..decision(verdict) }
}

fn get(world: &World, host: &str) -> String {
    world.run("tool", &format!("print(get('{host}'))"))
}

fn assert_refused(answer: &str) {
    assert!(answer.contains("403") && answer.contains("10.7.0.2 is a private address"), "{answer}");
}

#[test]
fn what_the_answering_rule_opens_is_reached_though_the_row_that_asked_opens_nothing() {
    let rows = table(vec![
        row("net/at-times", "*", Ask),
        opens(row("net/inside", "private.example", Allow)),
        row("net/all", "*", Allow),
    ]);
    world(rows, |world| {
        world.script.answer(vec![by("net/inside", Allow)]);
        assert!(get(world, "private.example").contains("reached 10.7.0.2"));
        // The rule is about another name.
        world.script.answer(vec![by("net/inside", Allow)]);
        assert!(get(world, "good.example").contains("reached 9.9.9.9"));
        world.script.answer(vec![by("net/all", Allow)]);
        assert_refused(&get(world, "private.example"));
    });
}

#[test]
fn what_the_row_that_asked_opens_is_refused_where_the_answering_rule_does_not_open_it() {
    let rows = table(vec![
        opens(row("net/at-times", "private.example", Ask)),
        opens(row("net/elsewhere", "other.example", Ask)),
        row("net/all", "*", Allow),
    ]);
    world(rows, |world| {
        for rule in ["net/all", "net/elsewhere", "network/default", "default", "net/no-such-rule", ""] {
            world.script.answer(vec![by(rule, Allow)]);
            assert_refused(&get(world, "private.example"));
        }
        let events = world.events.decisions();
        assert!(events.iter().all(|(_, event)| event.verdict() == Deny && &*event.layer == "gate"));
        assert_eq!(events[0].1.rule, "net/all");
        world.script.answer(vec![by("net/at-times", Allow)]);
        assert!(get(world, "private.example").contains("reached 10.7.0.2"));
        // Nothing has to be opened for what is public.
        world.script.answer(vec![by("network/default", Allow)]);
        assert!(get(world, "other.example").contains("reached 8.7.6.5"));
    });
}

#[test]
fn a_row_that_only_observes_or_denies_opens_nothing_for_an_answer_in_its_name() {
    let watch = pb::NetworkRow { observe: true, ..opens(row("net/watch", "private.example", Hold)) };
    let rows = table(vec![
        watch,
        row("net/ask", "private.example", Ask),
        opens(row("net/never", "private.example", Deny)),
    ]);
    world(rows, |world| {
        for rule in ["net/watch", "net/never"] {
            world.script.answer(vec![by(rule, Allow)]);
            assert_refused(&get(world, "private.example"));
        }
    });
}

#[test]
fn a_person_lets_through_what_the_rule_opens_that_held() {
    let rows = |more: fn(pb::NetworkRow) -> pb::NetworkRow| {
        table(vec![row("net/ask", "*", Ask), more(row("net/held", "private.example", Ask))])
    };
    for opened in [true, false] {
        world(rows(if opened { opens } else { |row| row }), move |world| {
            world.script.answer(vec![by("net/held", Hold)]);
            let client = world.spawn("tool", "print(get('private.example'))");
            let (_, mut channel) = world.script.take();
            assert!(matches!(progress(&mut channel), Some(Progress::Held(None))));
            channel.decisions.send(by("net/held", Allow)).unwrap();
            let answer = finish(client);
            if opened {
                assert!(answer.contains("reached 10.7.0.2"), "{answer}");
            } else {
                assert_refused(&answer);
            }
        });
    }
}

#[test]
fn an_address_is_reached_by_the_range_of_the_answering_rule_alone() {
    let rows = table(vec![range("net/wide", "0.0.0.0/0", Ask), range("net/inner", "10.7.0.0/24", Allow)]);
    world(rows, |world| {
        world.script.answer(vec![by("net/inner", Allow)]);
        assert!(get(world, PRIVATE).contains("reached 10.7.0.2"));
        world.script.answer(vec![by("net/wide", Allow)]);
        assert_refused(&get(world, PRIVATE));
        let asked = world.script.asked();
        // No rule opens it: nobody is asked.
        world.script.answer(vec![by("net/inner", Allow)]);
        assert!(get(world, "169.254.169.254").contains("cloud metadata"));
        assert_eq!(world.script.asked(), asked);
    });
    world(
        table(vec![range("net/inner", "10.7.0.0/24", Ask), range("net/wide", "0.0.0.0/0", Allow)]),
        |world| {
            world.script.answer(vec![by("net/wide", Allow)]);
            assert_refused(&get(world, PRIVATE));
            world.script.answer(vec![by("net/inner", Allow)]);
            assert!(get(world, PRIVATE).contains("reached 10.7.0.2"));
        },
    );
}

#[test]
fn each_request_of_a_connection_goes_where_its_own_answer_permits() {
    let inside = |row: pb::NetworkRow| pb::NetworkRow { host: "private.example".into(), ..row };
    let rows = table(vec![
        opens(inside(http("net/at-times", &["GET"], "", Ask))),
        inside(http("net/rest", &["GET"], "", Allow)),
    ]);
    world(rows, |world| {
        let script = "
s = connect('private.example', 8088)
def say(): return '%d %s' % req(s, 'GET', '/', host='private.example')[:2]
print('begun 100', say()[:5], flush=True)
time.sleep(1)
print(say())";
        let script = format!("{}\n{script}", common::http::CLIENT);
        world.script.answer(vec![by("net/at-times", Allow)]);
        let mut child = world.spawn("tool", &script);
        begun(&mut child);
        world.script.answer(vec![by("net/rest", Allow)]);
        let out = finish(child);
        assert!(out.contains("the rule does not allow the address") && out.contains("403"), "{out}");

        world.script.answer(vec![by("net/at-times", Allow)]);
        let out = run(world, &script.replace("time.sleep(1)", ""));
        assert_eq!((out.matches("200 G").count(), out.matches("403").count()), (2, 0), "{out}");
    });
}

#[test]
fn a_new_table_ends_what_its_answering_rule_no_longer_opens() {
    let ask = || row("net/ask", "*", Ask);
    let inside = || row("net/inside", "private.example", Allow);
    world(table(vec![ask(), opens(inside())]), move |world| {
        let transfer = "
s = connect('private.example', 9000)
print('begun', len(s.recv(100)), flush=True)
def rest():
    while s.recv(1 << 16): pass
    return 'end'
print(attempt(rest))";
        world.script.answer(vec![by("net/inside", Allow)]);
        let mut child = world.spawn("tool", transfer);
        begun(&mut child);
        assert_eq!(world.net().apply(&table(vec![ask(), opens(inside())]), 2).unwrap(), 0);
        assert!(child.try_wait().unwrap().is_none(), "what is still open goes on");
        assert_eq!(world.net().apply(&table(vec![opens(ask()), inside()]), 3).unwrap(), 1);
        assert_eq!(finish(child), "ECONNRESET");
    });
}
