use super::*;

fn executables(lineage: &Lineage, number: u64) -> (Vec<String>, bool) {
    let mut process = pb::Process::default();
    lineage.describe_ancestors(number, &mut process);
    (process.ancestor_executables, process.ancestors_truncated)
}

#[test]
fn ancestors_are_nearest_first_and_bounded() {
    let lineage = Lineage::new("0123abcd-ef");
    lineage.insert_first(1, "/bin/x", HashSet::new);
    for number in 2..=200 {
        lineage.insert(number, number - 1, "/bin/x", HashSet::new);
    }
    assert_eq!(lineage.record(3).unwrap().ancestors[..], [2, 1]);
    let last = lineage.record(200).unwrap();
    assert_eq!((last.ancestors.len(), last.ancestors[0]), (DEPTH, 199));
    assert_eq!((lineage.id(0), lineage.id(7)), (String::new(), "0123abcd-7".into()));
}

#[test]
fn a_long_chain_of_the_same_programs_pushes_no_executable_out() {
    let lineage = Lineage::new("1");
    lineage.insert_first(1, "/bin/agent", HashSet::new);
    for number in 2..=300 {
        let executable = if number % 2 == 0 { "/bin/sh" } else { "/bin/env" };
        lineage.insert(number, number - 1, executable, HashSet::new);
    }
    assert_eq!(executables(&lineage, 300), (vec!["/bin/env".into(), "/bin/agent".into()], false));
    assert_eq!(executables(&lineage, 299), (vec!["/bin/sh".into(), "/bin/agent".into()], false));
    assert_eq!(executables(&lineage, 1), (vec![], false));
}

#[test]
fn sixty_four_distinct_ancestors_are_all_there_and_one_more_is_said() {
    let lineage = Lineage::new("1");
    lineage.insert_first(1, "/bin/1", HashSet::new);
    for number in 2..=80 {
        lineage.insert(number, number - 1, &format!("/bin/{number}"), HashSet::new);
    }
    let (all, truncated) = executables(&lineage, 65);
    assert_eq!((all.len(), all[0].as_str(), all[63].as_str(), truncated), (64, "/bin/64", "/bin/1", false));
    let (cut, truncated) = executables(&lineage, 66);
    assert_eq!((cut.len(), cut[63].as_str(), truncated), (64, "/bin/2", true));
    // What was left out once stays left out, however few come after it.
    assert!(executables(&lineage, 80).1);
}

#[test]
fn long_paths_count_too() {
    let lineage = Lineage::new("1");
    let path = |number: u64| format!("/{number}{}", "x".repeat(4000));
    lineage.insert_first(1, &path(1), HashSet::new);
    for number in 2..=8 {
        lineage.insert(number, number - 1, &path(number), HashSet::new);
    }
    assert_eq!(executables(&lineage, 4), (vec![path(3), path(2), path(1)], false));
    let (cut, truncated) = executables(&lineage, 8);
    assert!(truncated && cut.iter().map(String::len).sum::<usize>() <= TEXT_MAX);
    assert_eq!(cut[0], path(7));
}

#[test]
fn an_image_of_which_nothing_is_known_has_unknown_ancestors() {
    let lineage = Lineage::new("1");
    assert_eq!(executables(&lineage, 0), (vec![], true));
    assert_eq!(executables(&lineage, 9), (vec![], true));
    lineage.insert(3, 2, "/bin/x", HashSet::new);
    assert_eq!(executables(&lineage, 3), (vec![], true));
    lineage.insert_first(4, "/bin/x", HashSet::new);
    assert_eq!(executables(&lineage, 4), (vec![], false));
}

#[test]
fn what_no_process_runs_is_forgotten() {
    let lineage = Lineage::new("1");
    let count = 10 * COLLECT_EVERY as u64;
    for number in 1..=count {
        lineage.insert(number, 0, "/bin/x", || HashSet::from([5]));
    }
    assert!(lineage.record(5).is_some());
    assert!(lineage.record(6).is_none());
    assert!(lineage.record(count).is_some());
    assert!(lineage.records.lock().unwrap().by_number.len() < 3 * COLLECT_EVERY);
}

#[test]
fn numbers_grow_are_even_and_none_comes_twice() {
    let lineage = Lineage::new("1");
    let numbers: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..1000).map(|_| lineage.number()).collect::<Vec<_>>())).collect();
        threads
            .into_iter()
            .flat_map(|thread| {
                let numbers = thread.join().unwrap();
                assert!(numbers.is_sorted());
                numbers
            })
            .collect()
    });
    assert!(numbers.iter().all(|number| number % 2 == 0));
    assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), 4000);
}
