//! From the contract's types to the shim's.

use clawsec_init::landlock::{PathRule, Ruleset};
use clawsec_proto as pb;

/// No ruleset restricts nothing; whether that is right is the supervisor's to know.
pub(crate) fn ruleset(from: Option<&pb::LandlockRuleset>) -> Ruleset {
    let Some(from) = from else { return Ruleset::default() };
    Ruleset {
        abi: from.abi,
        handled_access_fs: from.handled_access_fs,
        handled_access_net: from.handled_access_net,
        scoped: from.scoped,
        paths: from
            .paths
            .iter()
            .map(|rule| PathRule {
                path: rule.path.clone(),
                allowed_access: rule.allowed_access,
                optional: rule.optional,
            })
            .collect(),
    }
}
