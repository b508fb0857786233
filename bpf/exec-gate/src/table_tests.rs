use super::*;

fn row(rule: &str, executable: &str, verdict: pb::Verdict) -> pb::ExecRow {
    pb::ExecRow {
        rule: rule.into(),
        executable: executable.into(),
        verdict: verdict.into(),
        ..Default::default()
    }
}

fn allow(rule: &str, executable: &str) -> pb::ExecRow {
    row(rule, executable, pb::Verdict::Allow)
}

fn compile(rows: impl IntoIterator<Item = pb::ExecRow>) -> Result<ExecTable, TableError> {
    ExecTable::compile(&pb::ExecTable { rows: rows.into_iter().collect() })
}

fn rule(table: &ExecTable, subject: &str, path: &str) -> String {
    // The second time from what is kept.
    let [first, second] = [(); 2].map(|()| table.find(subject, path, || None).map_or("", |row| &row.rule));
    assert_eq!(first, second);
    first.into()
}

#[test]
fn the_first_row_that_matches_decides_whatever_kind_of_expression_it_has() {
    let table = compile([
        allow("git", "^(?:/usr/bin/git)$"),
        row("tools", "^(?:/usr/bin/[^/]*)$", pb::Verdict::Deny),
        allow("never", "^(?:/usr/bin/hg)$"),
        allow("two", "^(?:/opt/(?:a|b)/run)$"),
        row("opt", "^(?:/opt/.*)$", pb::Verdict::Log),
        row("rest", "", pb::Verdict::Ask),
        allow("last", "^(?:/srv/.*)$"),
    ])
    .unwrap();
    for (path, expected) in [
        ("/usr/bin/git", "git"),
        ("/usr/bin/hg", "tools"),
        ("/usr/bin/x/git", "rest"),
        ("/opt/a/run", "two"),
        ("/opt/c/run", "opt"),
        ("/srv/x", "rest"),
        ("/usr/bin/git ", "tools"),
    ] {
        assert_eq!(rule(&table, "main", path), expected, "{path}");
    }
    assert_eq!((table.exact.len(), table.any.len(), table.sets.len()), (4, 1, 1));
}

#[test]
fn a_row_of_another_subject_is_passed_over_and_no_row_is_none() {
    let only = |row: pb::ExecRow, subject: &str| pb::ExecRow { subjects: vec![subject.into()], ..row };
    let table = compile([
        only(allow("tool-exact", "^(?:/bin/a)$"), "tool"),
        only(allow("tool-set", "^(?:/bin/.)$"), "tool"),
        only(allow("main-set", "^(?:/bin/[ab])$"), "main"),
        only(allow("tool-any", ""), "tool"),
    ])
    .unwrap();
    assert_eq!(rule(&table, "tool", "/bin/a"), "tool-exact");
    assert_eq!(rule(&table, "main", "/bin/a"), "main-set");
    assert_eq!(rule(&table, "tool", "/bin/c"), "tool-set");
    assert_eq!(rule(&table, "main", "/bin/c"), "");
    assert_eq!(rule(&table, "tool", "/x"), "tool-any");
}

#[test]
fn the_whole_path_must_match_also_without_anchors() {
    let table = compile([
        allow("exact", "/bin/a"),
        allow("set", "/bin/b+"),
        allow("alternatives", "^/bin/c|/bin/d$"),
        allow("lines", "(?m)^/bin/e$"),
    ])
    .unwrap();
    for (path, expected) in [
        ("/bin/a", "exact"),
        ("/bin/ax", ""),
        ("/x/bin/a", ""),
        ("/bin/bb", "set"),
        ("/bin/bbx", ""),
        ("/bin/c", "alternatives"),
        ("/bin/cx", ""),
        ("/bin/e", "lines"),
        ("/bin/e\n/x", ""),
    ] {
        assert_eq!(rule(&table, "main", path), expected, "{path:?}");
    }
}

#[test]
fn a_condition_in_the_midst_is_not_lost_when_the_paths_are_known() {
    let table = compile([allow("none", r"^(?:/bin/a|$/bin/b|/bin\b/c|/bin\b\bx)$")]).unwrap();
    for (path, expected) in [("/bin/a", "none"), ("/bin/b", ""), ("/bin/c", "none"), ("/binx", "")] {
        assert_eq!(rule(&table, "main", path), expected, "{path}");
    }
}

#[test]
fn the_order_of_the_rows_holds_whatever_their_paths_begin_with() {
    let table = compile([
        allow("z", "^(?:/z/.*/x)$"),
        allow("any", "^(?:.*/x)$"),
        allow("a", "^(?:/a/.*/x)$"),
        allow("case", "^(?i:/CASE/.*)$"),
        allow("é", "^(?:/[éè]/.*)$"),
        allow("optional", "^(?:(?:/opt)?/run/.*)$"),
    ])
    .unwrap();
    assert_eq!(table.sets.len(), 2);
    for (path, expected) in [
        ("/z/1/x", "z"),
        ("/a/1/x", "any"),
        ("/Case/y", "case"),
        ("/è/y", "é"),
        ("/run/y", "optional"),
        ("/opt/run/y", "optional"),
        ("/opt/y", ""),
        ("/", ""),
    ] {
        assert_eq!(rule(&table, "main", path), expected, "{path}");
    }
}

#[test]
fn rows_that_cannot_be_meant_are_refused_by_name_and_good_ones_beside_them_are_not() {
    assert!(compile([allow("good", "^(?:/bin/a.*)$")]).is_ok());
    for (executable, verdict, why) in [
        ("^(?:/bin/(a)$", pb::Verdict::Allow, "cannot be read"),
        ("^(?:/bin/[a&&b])$", pb::Verdict::Allow, "&&"),
        (r"^(?:\C)$", pb::Verdict::Allow, "cannot be read"),
        ("^(?:(?:a{1000}){1000})$", pb::Verdict::Allow, "memory"),
        ("^(?:/bin/a)$", pb::Verdict::Hold, "verdict"),
        ("^(?:/bin/a)$", pb::Verdict::Unspecified, "verdict"),
    ] {
        let refused =
            compile([allow("good", "^(?:/bin/a.*)$"), row("bad", executable, verdict)]).unwrap_err();
        let sentence = refused.to_string();
        assert!(sentence.contains("\"bad\"") && sentence.contains(why), "{sentence}");
    }
    let unknown = pb::ExecRow { verdict: 77, ..allow("bad", "") };
    assert!(compile([unknown]).unwrap_err().to_string().contains("77"));
}

#[test]
fn a_table_of_more_memory_than_is_given_is_refused() {
    let rows =
        |count: usize| (0..count).map(|n| allow("large", &format!("^(?:/{n}/(?:[a-z0-9]{{4000}})+)$")));
    assert!(compile(rows(10)).is_ok());
    assert_eq!(compile(rows(2_000)).unwrap_err(), TableError::TooLarge);
}

#[test]
fn ten_thousand_rows_are_found_each() {
    for kind in 0..3 {
        let expression = |n: usize| match kind {
            0 => format!("^(?:/usr/bin/tool{n})$"),
            1 => format!("^(?:/usr/lib/pkg{n}/[^/]*)$"),
            _ => format!("^(?:.*/tool{n}(?:/[^/]*)?)$"),
        };
        let path = |n: usize| match kind {
            0 => format!("/usr/bin/tool{n}"),
            1 => format!("/usr/lib/pkg{n}/x"),
            _ => format!("/a/tool{n}"),
        };
        let table = compile((0..10_000).map(|n| allow(&format!("r{n}"), &expression(n)))).unwrap();
        for n in [0, 1, 255, 256, 257, 5000, 9999] {
            assert_eq!(rule(&table, "main", &path(n)), format!("r{n}"));
        }
        assert_eq!(rule(&table, "main", &path(10_000)), "");
    }
}
