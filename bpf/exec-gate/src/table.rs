//! The exec table: verdicts that need no question, by subject and path of the executable.
//!
//! Paths that an expression names in full are looked up in a map. All other expressions are matched in sets, a few
//! hundred at once, in the order of the rows, until a row holds. What was found is kept for the next exec.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use clawsec_core::{pb, re2};
use regex::{RegexSet, RegexSetBuilder};
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
/// Paths that one expression is looked up by, if it means no more than these.
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
}

impl Row {
    fn holds_for(&self, subject: &str) -> bool {
        self.subjects.is_empty() || self.subjects.iter().any(|name| name == subject)
    }
}

#[derive(Debug)]
struct Set {
    expressions: RegexSet,
    // Index of the row of each.
    rows: Vec<usize>,
}

/// A compiled table.
#[derive(Debug)]
pub struct ExecTable {
    rows: Vec<Row>,
    // Rows by path, and rows for any path. In order.
    exact: HashMap<String, Vec<usize>>,
    any: Vec<usize>,
    sets: Vec<Set>,
    // By subject, NUL and path. Also keeps two threads from matching at the same time, which would take more memory.
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
                None => expressions.push((index, expression)),
            }
        }
        for chunk in expressions.chunks(SET_ROWS) {
            compiled.add_set(chunk)?;
        }
        Ok(compiled)
    }

    // One set, or more if it is too large.
    fn add_set(&mut self, expressions: &[(usize, String)]) -> Result<(), TableError> {
        let built = RegexSetBuilder::new(expressions.iter().map(|(_, expression)| expression))
            .size_limit(SET_BYTES)
            .dfa_size_limit(MATCHING_BYTES)
            .build();
        match built {
            Ok(set) if self.sets.len() < SETS_MAX => {
                let rows = expressions.iter().map(|(index, _)| *index).collect();
                self.sets.push(Set { expressions: set, rows });
                Ok(())
            }
            Ok(_) => Err(TableError::TooLarge),
            Err(regex::Error::CompiledTooBig(_)) if expressions.len() > 1 => {
                let (first, second) = expressions.split_at(expressions.len() / 2);
                self.add_set(first)?;
                self.add_set(second)
            }
            Err(error) => {
                let rule = expressions.first().map(|(index, _)| self.rows[*index].rule.clone());
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

    /// The first row that holds for a subject and a whole path.
    pub fn find(&self, subject: &str, path: &str) -> Option<&Row> {
        let key = format!("{subject}\0{path}");
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let index = match found.get(&key) {
            Some(index) => index,
            None => {
                let index = self.search(subject, path);
                found.put(key, index);
                index
            }
        };
        index.map(|index| &self.rows[index])
    }

    fn search(&self, subject: &str, path: &str) -> Option<usize> {
        let holds = |index: &usize| self.rows[*index].holds_for(subject);
        let exact = self.exact.get(path).and_then(|rows| rows.iter().copied().find(holds));
        let any = self.any.iter().copied().find(holds);
        let known = [exact, any].into_iter().flatten().min();
        let searched = self.sets.iter().try_for_each(|set| {
            if known.is_some_and(|known| set.rows.first().is_none_or(|first| *first > known)) {
                return ControlFlow::Break(None);
            }
            let matched = set.expressions.matches(path).into_iter().map(|at| set.rows[at]).find(holds);
            if matched.is_some() { ControlFlow::Break(matched) } else { ControlFlow::Continue(()) }
        });
        let matched = searched.break_value().flatten();
        [known, matched].into_iter().flatten().min()
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
    Ok(Row { rule: row.rule.clone(), verdict, message: row.message.clone(), subjects: row.subjects.clone() })
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

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
