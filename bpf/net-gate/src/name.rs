//! Host names: one spelling for each, and the patterns of a policy.

/// Longest name in text form (RFC 1035, 2.3.4, less the root label).
const LONGEST_NAME: usize = 253;
/// Longest label.
const LONGEST_LABEL: usize = 63;

/// The one spelling of a host name: lower case, without the final dot. `None` for what is no host name.
///
/// Names are ASCII here, as DNS, SNI and Host carry them; an international name stands as its `xn--` form.
/// `_` is taken because service names use it.
pub(crate) fn normalise(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > LONGEST_NAME {
        return None;
    }
    let well_formed = name.split('.').all(|label| {
        !label.is_empty()
            && label.len() <= LONGEST_LABEL
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    });
    well_formed.then(|| name.to_ascii_lowercase())
}

/// The host part of `host[:port]`, as HTTP writes it, in its one spelling. Literal addresses keep their form.
pub(crate) fn normalise_authority(authority: &str) -> Option<String> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, tail) = rest.split_once(']')?;
        return (tail.is_empty() || is_port(tail.strip_prefix(':')?)).then(|| address.to_ascii_lowercase());
    }
    match authority.split_once(':') {
        Some((host, port)) if is_port(port) => normalise(host),
        Some(_) => None,
        None => normalise(authority),
    }
}

fn is_port(text: &str) -> bool {
    text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A host pattern of a policy row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Any name.
    Any,
    /// This name only.
    Exact(String),
    /// Names that end in this, which begins with a dot: one label more, or several, never the name itself.
    Below(String),
}

impl Pattern {
    /// Reads `name`, `*.name` or `*`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        match text.strip_prefix("*.") {
            Some(parent) => normalise(parent).map(|parent| Self::Below(format!(".{parent}"))),
            None => normalise(text).map(Self::Exact),
        }
    }

    /// Whether the pattern holds for a normalised name.
    pub(crate) fn matches(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == name,
            Self::Below(suffix) => name.len() > suffix.len() && name.ends_with(suffix.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_final_dot_do_not_make_another_name() {
        assert_eq!(normalise("API.Example.COM.").as_deref(), Some("api.example.com"));
        assert_eq!(normalise("xn--bcher-kva.example").as_deref(), Some("xn--bcher-kva.example"));
        assert_eq!(normalise("_srv.example").as_deref(), Some("_srv.example"));
    }

    #[test]
    fn what_is_no_host_name_has_no_spelling() {
        for bad in ["", ".", "a..b", "a b", "a/b", "bücher.example", "a.com:443", "a\0b", "..", "a.com.."] {
            assert_eq!(normalise(bad), None, "{bad:?}");
        }
        assert!(normalise(&"a".repeat(63)).is_some());
        assert_eq!(normalise(&"a".repeat(64)), None);
        let long = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
        assert_eq!(long.len(), 253);
        assert!(normalise(&long).is_some());
        assert_eq!(normalise(&format!("{long}d")), None);
    }

    #[test]
    fn a_port_is_not_part_of_the_host() {
        assert_eq!(normalise_authority("A.com:8080").as_deref(), Some("a.com"));
        assert_eq!(normalise_authority("a.com.").as_deref(), Some("a.com"));
        assert_eq!(normalise_authority("[::1]:80").as_deref(), Some("::1"));
        assert_eq!(normalise_authority("a.com:80:80"), None);
        assert_eq!(normalise_authority("a.com:http"), None);
        assert_eq!(normalise_authority("user@a.com"), None);
    }

    #[test]
    fn a_wildcard_covers_subdomains_and_neither_the_name_nor_a_lookalike() {
        let below = Pattern::parse("*.x.com").expect("a pattern");
        assert!(below.matches("a.x.com"));
        assert!(below.matches("a.b.x.com"));
        for near in ["x.com", "evilx.com", ".x.com", "a.x.com.evil.net", "a.x.co"] {
            assert!(!below.matches(near), "{near}");
        }
        assert!(Pattern::parse("x.com").expect("a pattern").matches("x.com"));
        assert!(!Pattern::parse("x.com").expect("a pattern").matches("a.x.com"));
        assert!(Pattern::Any.matches("anything"));
        for bad in ["", "*.", "a.*.com", "**", "*x.com", "*.*.com"] {
            assert_eq!(Pattern::parse(bad), None, "{bad:?}");
        }
    }
}
