//! What an answer goes by that the caller can still change, and how the approval is bound to it.

use clawsec_core::pb;

use crate::bpf::abi::{Approval, Hashed};
use crate::handler::{ExecHandler, Request};
use crate::resolve::Failure;

/// The facts that an answer goes by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bound {
    pub cwd: bool,
    pub environment: bool,
    pub script: bool,
}

impl Bound {
    /// Those that a decision names; all of them when a person decides about what is shown.
    ///
    /// # Errors
    /// It names one that this loader does not know, and so cannot bind. A sentence.
    pub fn of(decision: &pb::Decision) -> Result<Self, String> {
        if decision.verdict() == pb::Verdict::Hold {
            return Ok(Self { cwd: true, environment: true, script: true });
        }
        let mut bound = Self::default();
        for fact in &decision.depends_on {
            match pb::ExecFact::try_from(*fact) {
                Ok(pb::ExecFact::Cwd) => bound.cwd = true,
                Ok(pb::ExecFact::Environment) => bound.environment = true,
                Ok(pb::ExecFact::Script) => bound.script = true,
                Ok(pb::ExecFact::Unspecified) | Err(_) => {
                    return Err(format!(
                        "the decision goes by a fact that this loader does not know ({fact})"
                    ));
                }
            }
        }
        Ok(bound)
    }
}

impl ExecHandler {
    /// Binds an approval to what the decision goes by. The error is a sentence.
    pub(crate) fn bind(
        &self,
        approval: &mut Approval,
        request: &Request,
        decision: &pb::Decision,
    ) -> Result<(), String> {
        let bound = Bound::of(decision)?;
        if bound.environment {
            approval.environment = Some(request.environment.ok_or(
                "the policy goes by its environment, which is longer than can be compared (128 KiB)",
            )?);
        }
        // The interpreter opens a relative name from there.
        let image = &request.image;
        let by_script = bound.script && image.script().is_some() && !image.name.starts_with(b"/");
        if bound.cwd || by_script {
            let cwd = request.cwd.as_ref().ok_or("its working directory cannot be read")?;
            let folder = self.sandbox.view.identify_cwd(request.task.tid, cwd);
            approval.cwd = Some(folder.map_err(|failure| match failure {
                Failure::Refused(message) => message,
                Failure::Errno(errno) => format!("its working directory cannot be identified ({errno})"),
            })?);
        }
        Ok(())
    }

    /// An environment as an approval has it.
    pub(crate) fn hashed(&self, bytes: &[u8]) -> Hashed {
        Hashed { hash: self.shared.verify.hash(bytes), length: bytes.len() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_bound_to_what_it_names_a_hold_to_everything_and_an_unknown_fact_is_refused() {
        let of = |verdict: pb::Verdict, facts: &[i32]| {
            Bound::of(&pb::Decision {
                verdict: verdict.into(),
                depends_on: facts.to_vec(),
                ..Default::default()
            })
        };
        assert_eq!(of(pb::Verdict::Allow, &[]), Ok(Bound::default()));
        assert_eq!(
            of(pb::Verdict::Allow, &[1, 3]),
            Ok(Bound { cwd: true, environment: false, script: true })
        );
        assert_eq!(of(pb::Verdict::Hold, &[]), Ok(Bound { cwd: true, environment: true, script: true }));
        for unknown in [0, 99] {
            assert!(of(pb::Verdict::Allow, &[1, unknown]).is_err());
        }
    }
}
