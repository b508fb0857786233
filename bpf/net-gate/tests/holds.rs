//! Questions about connections: held, allowed, denied, withdrawn, remembered.

mod common;

use std::time::Duration;

use clawsec_core::ask::Progress;
use clawsec_core::pb::Verdict::{Allow, Ask, Deny, Hold};
use clawsec_core::pb::{self, CacheScope};
use common::net::finish;
use common::play::{decision, progress};
use common::{row, table, until, world};

fn asking() -> pb::NetworkTable {
    table(vec![row("net/ask", "held.example", Ask), row("net/good", "good.example", Allow)])
}

#[test]
fn a_held_connection_waits_and_goes_on_when_it_is_allowed() {
    world(asking(), |world| {
        world.script.answer(vec![decision(Hold)]);
        let client = world.spawn("tool", "print(get('held.example'))");
        let (question, mut channel) = world.script.take();
        assert_eq!((&*question.subject, question.process.as_ref().unwrap().pid), ("tool", client.id()));
        match &question.action {
            Some(pb::question::Action::Network(action)) => {
                assert_eq!((&*action.host, action.port, &*action.rule), ("held.example", 80, "net/ask"));
                assert_eq!(&*action.observed_host, "held.example");
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(progress(&mut channel), Some(Progress::Held(None))));
        // Others are not held up.
        assert!(world.run("tool", "print(get('good.example'))").contains("reached"));
        channel.decisions.send(decision(Allow)).unwrap();
        assert!(finish(client).contains("reached 9.9.9.9:80"));
        assert!(matches!(progress(&mut channel), Some(Progress::Settled(Allow, _))));
        let (_, event) = world.decision("held.example");
        assert_eq!((event.verdict(), &*event.layer, &*event.hold_id), (Allow, "person", "hold-1"));
        assert_eq!(event.question_id, question.id);
    });
}

#[test]
fn a_held_connection_that_is_denied_is_told_so() {
    world(asking(), |world| {
        world.script.answer(vec![decision(Hold)]);
        let client = world.spawn("tool", "print(get('held.example'))");
        let (_, mut channel) = world.script.take();
        assert!(matches!(progress(&mut channel), Some(Progress::Held(None))));
        channel.decisions.send(decision(Deny)).unwrap();
        let answer = finish(client);
        assert!(
            answer.contains("403") && answer.contains("a person said so (rule network/asked)"),
            "{answer}"
        );
        assert!(matches!(progress(&mut channel), Some(Progress::Settled(Deny, _))));
    });
}

#[test]
fn a_hold_ends_when_its_client_is_gone_however_it_went() {
    world(asking(), |world| {
        for (how, script) in [
            ("close", "s = connect('held.example', 80); s.sendall(b'GET / HTTP/1.1\\r\\nHost: held.example\\r\\n\\r\\n')
time.sleep(0.5); s.close(); time.sleep(20)"),
            ("reset", "s = connect('held.example', 80); s.sendall(b'GET / HTTP/1.1\\r\\nHost: held.example\\r\\n\\r\\n')
time.sleep(0.5); s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); s.close(); time.sleep(20)"),
            ("kill", "s = connect('held.example', 80); s.sendall(b'GET / HTTP/1.1\\r\\nHost: held.example\\r\\n\\r\\n')
time.sleep(0.5); os.kill(os.getpid(), 9)"),
        ] {
            world.script.answer(vec![decision(Hold)]);
            let mut client = world.spawn("tool", script);
            let (_, mut channel) = world.script.take();
            assert!(matches!(progress(&mut channel), Some(Progress::Held(None))), "{how}");
            let next = progress(&mut channel);
            assert!(matches!(next, Some(Progress::Gone(_))), "{how}: {next:?}");
            let _ = client.kill();
            client.wait().unwrap();
            until("no connection is left", || (world.net().connections() == 0).then_some(()));
        }
    });
}

#[test]
fn a_supervisor_that_goes_away_is_a_denial() {
    world(asking(), |world| {
        let client = world.spawn("tool", "print(get('held.example'))");
        let (_, channel) = world.script.take();
        drop(channel);
        let answer = finish(client);
        assert!(answer.contains("403") && answer.contains("the loader is stopping"), "{answer}");
    });
}

#[test]
fn bytes_sent_while_held_arrive_after_the_allowance() {
    world(asking(), |world| {
        world.script.answer(vec![decision(Hold)]);
        let client = world.spawn(
            "tool",
            "s = connect('held.example', 9001); s.sendall(b'a' * 5000); time.sleep(0.3); s.sendall(b'b' * 5000)
time.sleep(0.3); t = threading.Timer(0.7, lambda: s.shutdown(1)); t.start(); print(drain(s))",
        );
        let (_, channel) = world.script.take();
        std::thread::sleep(Duration::from_millis(900));
        channel.decisions.send(decision(Allow)).unwrap();
        assert_eq!(finish(client), "b'10000'");
    });
}

#[test]
fn an_answer_is_remembered_only_as_far_as_it_says_and_under_its_epoch() {
    world(asking(), |world| {
        let get = |world: &mut common::World| world.run("tool", "print(get('held.example'))");
        world.script.answer(vec![decision(Allow)]);
        assert!(get(world).contains("reached"));
        assert!(get(world).contains("reached"));
        assert_eq!(world.script.asked(), 2, "without a scope it is asked again");

        world.script.answer(vec![pb::Decision { cache_scope: CacheScope::File.into(), ..decision(Allow) }]);
        assert!(get(world).contains("reached"));
        assert!(get(world).contains("reached"));
        assert_eq!(world.script.asked(), 3, "with a scope it is remembered");
        let other = world.run("gateway", "print(get('held.example'))");
        assert!(other.contains("reached"));
        assert_eq!(world.script.asked(), 4, "another subject is another question");
        let port = world.run("tool", "print(get('held.example', 8080))");
        assert!(port.contains("reached"));
        assert_eq!(world.script.asked(), 5, "another port is another question");

        world.script.set_epoch(2);
        world.script.answer(vec![decision(Deny)]);
        assert!(get(world).contains("403"));
        assert_eq!(world.script.asked(), 6, "another epoch makes it void");
    });
}

#[test]
fn nobody_is_asked_about_an_address_that_would_be_refused_anyway() {
    world(table(vec![common::range("net/any", "0.0.0.0/0", Ask)]), |world| {
        world.script.answer(vec![decision(Allow)]);
        let refused = world.run("tool", "print(get('169.254.169.254'))");
        assert!(refused.contains("403") && refused.contains("cloud metadata"), "{refused}");
        assert_eq!(world.script.asked(), 0);
        assert!(world.run("tool", "print(get('8.7.6.5'))").contains("reached 8.7.6.5"));
        assert_eq!(world.script.asked(), 1);
    });
}
