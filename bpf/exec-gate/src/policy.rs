//! What the gate knows of a sandbox's policy: its epoch, its table, and which facts its questions need.

use clawsec_core::pb;

use crate::bpf::abi::ENVIRONMENT_MAX;
use crate::handler::{ExecHandler, Request};
use crate::resolve::Kind;
use crate::table::{ExecTable, TableError};
use crate::{facts, memory};

/// The exec gate's part of a policy, ready for use.
#[derive(Debug, Default)]
pub struct ExecPolicy {
    epoch: u64,
    table: Option<ExecTable>,
    sha256: bool,
    // Of the policy before this one, which is in force until the epoch is raised.
    sha256_before: bool,
}

impl ExecPolicy {
    /// Compiles the exec gate's part of `tables`.
    ///
    /// # Errors
    /// A row that cannot be meant, or a table that is too large; the error is a sentence.
    pub fn compile(tables: &pb::PolicyTables) -> Result<Self, TableError> {
        Ok(Self {
            epoch: tables.epoch,
            table: tables.exec.as_ref().map(ExecTable::compile).transpose()?,
            sha256: tables.facts.as_ref().is_some_and(|facts| facts.sha256),
            sha256_before: false,
        })
    }

    /// This one, to come after `before`.
    pub(crate) fn after(self, before: &Self) -> Self {
        Self { sha256_before: before.sha256, ..self }
    }

    /// Whether questions show what the files contain.
    pub(crate) fn needs_digests(&self, epoch: u64) -> bool {
        self.sha256 || (self.sha256_before && epoch != self.epoch)
    }
}

impl ExecHandler {
    /// What the table in force says about an exec; `None`: it is to be asked about. Reads the environment if a row looks
    /// at it.
    pub(crate) fn tabled(&self, request: &mut Request) -> Option<pb::Decision> {
        let policy = self.sandbox.policy();
        let table = policy.table.as_ref()?;
        // A table that was swapped in waits for its epoch.
        if policy.epoch != self.shared.asker.epoch(&self.sandbox.scope.sandbox) {
            return None;
        }
        let [file] = request.image.files.as_slice() else { return None };
        if !request.image.script_unknown.is_empty() || file.kind != Kind::File || !file.path.starts_with(b"/")
        {
            return None;
        }
        // An expression is about text, and lossy text would be the name of another file.
        let path = std::str::from_utf8(&file.path).ok()?;
        let (tid, envp) = (request.task.tid, request.notification.envp());
        let (mut names, mut hashed) = (None, None);
        let row = table.find(&request.subject.name, path, || {
            if names.is_none() {
                let environment = memory::read_environment(tid, envp, ENVIRONMENT_MAX).ok()?;
                // One that cannot be compared later is asked about, and denied with its reason.
                hashed = Some(self.hashed(&environment.block?));
                names = Some(facts::texts(&environment.names.items).into());
            }
            names.clone()
        })?;
        if row.verdict == pb::Verdict::Ask {
            return None;
        }
        request.environment = hashed;
        let depends_on = hashed.map(|_| pb::ExecFact::Environment.into()).into_iter().collect();
        Some(pb::Decision {
            depends_on,
            verdict: row.verdict.into(),
            rule: row.rule.clone(),
            layer: "table".into(),
            message: row.message.clone(),
            cache_scope: pb::CacheScope::None.into(),
            epoch: policy.epoch,
            ..Default::default()
        })
    }
}
