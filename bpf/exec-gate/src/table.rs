//! The exec table: verdicts that need no question, by subject and path of the executable.
//!
//! Paths that an expression names in full are looked up in a map. All other expressions are matched in sets, a few
//! hundred at once; those that can only match what begins in a certain way share sets that are left out for all other
//! paths. What was found is kept for the next exec.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use clawsec_core::{pb, re2};
use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use regex_syntax::hir::literal::Extractor;
use regex_syntax::hir::{Hir, HirKind, Look, LookSet};

use crate::cache::Cache;

/// Expressions in one set.
const SET_ROWS: usize = 256;
/// Memory of one compiled set, and of what its matching keeps (for each thread that matches).
const SET_BYTES: usize = 1 << 20;
const MATCHING_BYTES: usize = 256 << 10;
/// Sets of one table. With their sizes the bound of a table's memory; 10,000 usual rows need 40.
const SETS_MAX: usize = 128;
/// Paths, or beginnings of paths, that one expression is looked up by.
const PATHS_MAX: usize = 64;
/// Subjects with paths whose row is kept in mind (twice this at most).
const FOUND_MAX: usize = 1024;

/// Why a table is not taken, as a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// One row.
    #[error("the exec row {rule:?} cannot stand in a table: {why}")]
    Row {
        /// Its rule.
        rule: String,
        /// What is wrong.
        why: String,
    },
    /// All of them.
    #[error(
        "the exec table is too large: its expressions need more than {SETS_MAX} MiB; name paths in full, or write fewer expressions"
    )]
    TooLarge,
}

/// A row without its expression.
#[derive(Debug)]
pub struct Row {
    /// Rule id.
    pub rule: String,
    /// Allow, deny, log or ask.
    pub verdict: pb::Verdict,
    /// What the caller is told on a denial.
    pub message: String,
    subjects: Vec<String>,
    // Of which one name of the environment must match.
    environment: Option<Regex>,
}

impl Row {
    fn holds_for(&self, subject: &str) -> bool {
        self.subjects.is_empty() || self.subjects.iter().any(|name| name == subject)
    }
}

#[derive(Debug)]
struct Set {
    expressions: RegexSet,
    // Index of the row of each, and the smallest.
    rows: Vec<usize>,
    first: usize,
}

// An expression on its way into a set. What it matches begins with one of these; none: it may be anything.
struct Expression {
    row: usize,
    text: String,
    beginnings: Vec<Vec<u8>>,
}

/// Which sets may match, by how a path begins.
#[derive(Debug, Default)]
struct Beginnings {
    sets: HashMap<Vec<u8>, Vec<usize>>,
    // Sorted.
    lengths: Vec<usize>,
    // Sets that may match any path.
    all: Vec<usize>,
}

impl Beginnings {
    fn add(&mut self, set: usize, expressions: &[Expression]) {
        if expressions.iter().any(|expression| expression.beginnings.is_empty()) {
            self.all.push(set);
            return;
        }
        for beginning in expressions.iter().flat_map(|expression| &expression.beginnings) {
            let sets = self.sets.entry(beginning.clone()).or_default();
            if sets.last() != Some(&set) {
                sets.push(set);
            }
            if let Err(place) = self.lengths.binary_search(&beginning.len()) {
                self.lengths.insert(place, beginning.len());
            }
        }
    }

    fn candidates(&self, path: &[u8]) -> BTreeSet<usize> {
        let beginnings = self.lengths.iter().map_while(|length| path.get(..*length));
        let found = beginnings.filter_map(|beginning| self.sets.get(beginning)).flatten();
        found.chain(&self.all).copied().collect()
    }
}

/// A compiled table.
#[derive(Debug)]
pub struct ExecTable {
    rows: Vec<Row>,
    // Rows by path, and rows for any path. In order.
    exact: HashMap<String, Vec<usize>>,
    any: Vec<usize>,
    sets: Vec<Set>,
    beginnings: Beginnings,
    // By the first row that counts, NUL, subject, NUL and path. Also keeps two threads from matching at the same time, which would take more memory.
    found: Mutex<Cache<String, Option<usize>>>,
}

impl ExecTable {
    /// Compiles a table. For 10,000 rows this takes some hundred milliseconds.
    ///
    /// # Errors
    /// [`TableError`]; a row that is not understood is never left out.
    pub fn compile(table: &pb::ExecTable) -> Result<Self, TableError> {
        let mut compiled = Self {
            rows: Vec::with_capacity(table.rows.len()),
            exact: HashMap::new(),
            any: Vec::new(),
            sets: Vec::new(),
            beginnings: Beginnings::default(),
            found: Mutex::new(Cache::new(FOUND_MAX)),
        };
        let mut expressions = Vec::new();
        for (index, row) in table.rows.iter().enumerate() {
            compiled.rows.push(check(row)?);
            if row.executable.is_empty() {
                compiled.any.push(index);
                continue;
            }
            let fail = |why: String| TableError::Row { rule: row.rule.clone(), why };
            let expression = re2::translate(&row.executable)
                .map_err(|error| fail(format!("its expression {:?} {error}", row.executable)))?;
            // The whole path, also when the anchors were forgotten.
            let expression = format!(r"\A(?:{expression})\z");
            let hir = regex_syntax::parse(&expression).map_err(|error| {
                fail(format!("its expression {:?} cannot be read: {error}", row.executable))
            })?;
            match paths(&hir) {
                Some(paths) => {
                    for path in paths {
                        compiled.exact.entry(path).or_default().push(index);
                    }
                }
                None => {
                    let beginnings = beginnings(&hir);
                    expressions.push(Expression { row: index, text: expression, beginnings });
                }
            }
        }
        // What begins alike comes together; what may begin in any way comes first, and apart.
        expressions.sort_by(|one, other| (&one.beginnings, one.row).cmp(&(&other.beginnings, other.row)));
        let apart = expressions.partition_point(|expression| expression.beginnings.is_empty());
        let (any, others) = expressions.split_at(apart);
        for chunk in any.chunks(SET_ROWS).chain(others.chunks(SET_ROWS)) {
            compiled.add_set(chunk)?;
        }
        Ok(compiled)
    }

    // One set, or more if it is too large.
    fn add_set(&mut self, expressions: &[Expression]) -> Result<(), TableError> {
        let built = RegexSetBuilder::new(expressions.iter().map(|expression| &expression.text))
            .size_limit(SET_BYTES)
            .dfa_size_limit(MATCHING_BYTES)
            .build();
        match built {
            Ok(set) if self.sets.len() < SETS_MAX => {
                let rows: Vec<usize> = expressions.iter().map(|expression| expression.row).collect();
                let first = rows.iter().copied().min().unwrap_or_default();
                self.beginnings.add(self.sets.len(), expressions);
                self.sets.push(Set { expressions: set, rows, first });
                Ok(())
            }
            Ok(_) => Err(TableError::TooLarge),
            Err(regex::Error::CompiledTooBig(_)) if expressions.len() > 1 => {
                let (first, second) = expressions.split_at(expressions.len() / 2);
                self.add_set(first)?;
                self.add_set(second)
            }
            Err(error) => {
                let rule = expressions.first().map(|expression| self.rows[expression.row].rule.clone());
                let why = match error {
                    regex::Error::CompiledTooBig(_) => {
                        format!("its expression needs more than {SET_BYTES} bytes of memory")
                    }
                    error => format!("its expression cannot be used: {error}"),
                };
                Err(TableError::Row { rule: rule.unwrap_or_default(), why })
            }
        }
    }

    /// The first row that holds for a subject, a whole path and an environment. `names` gives the names of its
    /// variables, and is asked only when a row looks at them; `None`: they are not known, and no row is found.
    pub fn find(
        &self,
        subject: &str,
        path: &str,
        mut names: impl FnMut() -> Option<Arc<[String]>>,
    ) -> Option<&Row> {
        let mut from = 0;
        loop {
            let index = self.find_from(from, subject, path)?;
            let row = &self.rows[index];
            match &row.environment {
                Some(expression) if !names()?.iter().any(|name| expression.is_match(name)) => {
                    from = index + 1;
                }
                _ => return Some(row),
            }
        }
    }

    fn find_from(&self, from: usize, subject: &str, path: &str) -> Option<usize> {
        let key = format!("{from}\0{subject}\0{path}");
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        match found.get(&key) {
            Some(index) => index,
            None => {
                let index = self.search(from, subject, path);
                found.put(key, index);
                index
            }
        }
    }

    fn search(&self, from: usize, subject: &str, path: &str) -> Option<usize> {
        let holds = |index: &usize| *index >= from && self.rows[*index].holds_for(subject);
        let exact = self.exact.get(path).and_then(|rows| rows.iter().copied().find(holds));
        let any = self.any.iter().copied().find(holds);
        let mut best = [exact, any].into_iter().flatten().min();
        for set in self.beginnings.candidates(path.as_bytes()) {
            let set = &self.sets[set];
            if best.is_some_and(|best| best < set.first) {
                continue;
            }
            let matched =
                set.expressions.matches(path).into_iter().map(|at| set.rows[at]).filter(holds).min();
            best = [best, matched].into_iter().flatten().min();
        }
        best
    }
}

fn check(row: &pb::ExecRow) -> Result<Row, TableError> {
    let verdict = match pb::Verdict::try_from(row.verdict) {
        Ok(verdict @ (pb::Verdict::Allow | pb::Verdict::Deny | pb::Verdict::Log | pb::Verdict::Ask)) => {
            verdict
        }
        // A hold needs an id and a deadline, which only an answer has.
        Ok(pb::Verdict::Unspecified | pb::Verdict::Hold) | Err(_) => {
            return Err(TableError::Row {
                rule: row.rule.clone(),
                why: format!("its verdict {} is none of allow, deny, log and ask", row.verdict),
            });
        }
    };
    let environment = (!row.environment.is_empty()).then(|| expression(row, &row.environment)).transpose()?;
    Ok(Row {
        rule: row.rule.clone(),
        verdict,
        message: row.message.clone(),
        subjects: row.subjects.clone(),
        environment,
    })
}

// An expression for a whole name.
fn expression(row: &pb::ExecRow, text: &str) -> Result<Regex, TableError> {
    let fail = |why: String| TableError::Row { rule: row.rule.clone(), why };
    let translated =
        re2::translate(text).map_err(|error| fail(format!("its expression {text:?} {error}")))?;
    RegexBuilder::new(&format!(r"\A(?:{translated})\z"))
        .size_limit(SET_BYTES)
        .dfa_size_limit(MATCHING_BYTES)
        .build()
        .map_err(|error| fail(format!("its expression {text:?} cannot be used: {error}")))
}

// The paths that an expression with both anchors means, if these are few and known in full.
fn paths(hir: &Hir) -> Option<Vec<String>> {
    let HirKind::Concat(parts) = hir.kind() else { return None };
    let is = |part: &Hir, look: Look| matches!(part.kind(), HirKind::Look(found) if *found == look);
    let first = parts.iter().position(|part| !is(part, Look::Start))?;
    let last = parts.iter().rposition(|part| !is(part, Look::End))?;
    let inner = parts.get(first..=last)?;
    // An anchor or boundary in the midst is a condition that the text alone does not show.
    if first == 0
        || last + 1 == parts.len()
        || inner.iter().any(|part| part.properties().look_set() != LookSet::empty())
    {
        return None;
    }
    let mut extractor = Extractor::new();
    extractor.limit_total(PATHS_MAX);
    let found = extractor.extract(&Hir::concat(inner.to_vec()));
    let literals = found.literals().filter(|_| found.is_exact())?;
    let mut paths = literals
        .iter()
        .map(|literal| String::from_utf8(literal.as_bytes().to_vec()).ok())
        .collect::<Option<Vec<_>>>()?;
    paths.sort_unstable();
    paths.dedup();
    Some(paths)
}

// With which of these a path must begin; none: nothing is known.
fn beginnings(hir: &Hir) -> Vec<Vec<u8>> {
    let mut extractor = Extractor::new();
    extractor.limit_total(PATHS_MAX);
    let found = extractor.extract(hir);
    let literals = found.literals().unwrap_or_default();
    if literals.iter().any(|literal| literal.is_empty()) {
        return Vec::new();
    }
    literals.iter().map(|literal| literal.as_bytes().to_vec()).collect()
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
