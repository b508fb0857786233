//! RE2 expressions (the policy's), run by the `regex` crate.
//!
//! Both have the same grammar but for few things, and there an expression means what RE2 says (`\d`, `\s`, `\w` and `\b`
//! are about ASCII) or is refused (`[a[b]]`, `[a&&b]`: operators here, plain characters there).

use regex_syntax::ast::{
    self, AssertionKind, Ast, ClassPerlKind, ClassSet, ClassSetItem, Flags, FlagsItemKind,
};

/// Why an expression is not taken: the end of a sentence that begins with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Re2Error {
    /// It is no expression, or uses what only RE2 has.
    #[error("cannot be read: {0}")]
    Syntax(String),
    /// The two grammars differ.
    #[error("has {0}")]
    Differs(&'static str),
}

/// The same expression in the grammar of the `regex` crate, for text. `text` is RE2 syntax.
///
/// # Errors
/// [`Re2Error`]; nothing that compiles elsewhere to another meaning passes.
pub fn translate(text: &str) -> Result<String, Re2Error> {
    let mut ast =
        ast::parse::Parser::new().parse(text).map_err(|error| Re2Error::Syntax(error.kind().to_string()))?;
    rewrite(&mut ast)?;
    let mut translated = String::new();
    ast::print::Printer::new()
        .print(&ast, &mut translated)
        .map_err(|error| Re2Error::Syntax(error.to_string()))?;
    Ok(translated)
}

// The parser refuses what is nested deeper than 250, so recursion has an end.
fn rewrite(ast: &mut Ast) -> Result<(), Re2Error> {
    match ast {
        Ast::Empty(_) | Ast::Literal(_) | Ast::Dot(_) | Ast::ClassUnicode(_) => {}
        Ast::Flags(set) => flags(&set.flags)?,
        Ast::Assertion(assertion) => match assertion.kind {
            AssertionKind::StartLine
            | AssertionKind::EndLine
            | AssertionKind::StartText
            | AssertionKind::EndText => {}
            AssertionKind::WordBoundary => *ast = fixed(r"(?-u:\b)")?,
            _ => return Err(Re2Error::Differs(r"a boundary of words other than \b")),
        },
        Ast::ClassPerl(class) => *ast = fixed(ascii(&class.kind, class.negated))?,
        Ast::ClassBracketed(class) => class_set(&mut class.kind)?,
        Ast::Repetition(repetition) => rewrite(&mut repetition.ast)?,
        Ast::Group(group) => {
            if let ast::GroupKind::NonCapturing(set) = &group.kind {
                flags(set)?;
            }
            rewrite(&mut group.ast)?;
        }
        Ast::Alternation(alternation) => {
            for part in &mut alternation.asts {
                rewrite(part)?;
            }
        }
        Ast::Concat(concat) => {
            for part in &mut concat.asts {
                rewrite(part)?;
            }
        }
    }
    Ok(())
}

fn flags(flags: &Flags) -> Result<(), Re2Error> {
    let known = flags.items.iter().all(|item| match &item.kind {
        FlagsItemKind::Negation => true,
        FlagsItemKind::Flag(flag) => matches!(
            flag,
            ast::Flag::CaseInsensitive
                | ast::Flag::MultiLine
                | ast::Flag::DotMatchesNewLine
                | ast::Flag::SwapGreed
        ),
    });
    if known { Ok(()) } else { Err(Re2Error::Differs("a flag other than i, m, s and U")) }
}

fn class_set(set: &mut ClassSet) -> Result<(), Re2Error> {
    match set {
        ClassSet::Item(item) => class_item(item),
        ClassSet::BinaryOp(_) => Err(Re2Error::Differs(r"&&, -- or ~~ between brackets; write \& \- \~")),
    }
}

fn class_item(item: &mut ClassSetItem) -> Result<(), Re2Error> {
    match item {
        ClassSetItem::Perl(class) => {
            if let Ast::ClassBracketed(class) = &fixed(ascii(&class.kind, class.negated))? {
                *item = ClassSetItem::Bracketed(class.clone());
            }
        }
        ClassSetItem::Bracketed(_) => {
            return Err(Re2Error::Differs(r"a bracket between brackets; write \["));
        }
        ClassSetItem::Union(union) => {
            for item in &mut union.items {
                class_item(item)?;
            }
        }
        ClassSetItem::Empty(_)
        | ClassSetItem::Literal(_)
        | ClassSetItem::Range(_)
        | ClassSetItem::Ascii(_)
        | ClassSetItem::Unicode(_) => {}
    }
    Ok(())
}

// https://github.com/google/re2/wiki/Syntax, "Perl character classes (all ASCII-only)". No vertical tab in \s.
fn ascii(kind: &ClassPerlKind, negated: bool) -> &'static str {
    match (kind, negated) {
        (ClassPerlKind::Digit, false) => "[0-9]",
        (ClassPerlKind::Digit, true) => "[^0-9]",
        (ClassPerlKind::Space, false) => r"[\t\n\f\r ]",
        (ClassPerlKind::Space, true) => r"[^\t\n\f\r ]",
        (ClassPerlKind::Word, false) => "[0-9A-Za-z_]",
        (ClassPerlKind::Word, true) => "[^0-9A-Za-z_]",
    }
}

fn fixed(text: &'static str) -> Result<Ast, Re2Error> {
    ast::parse::Parser::new().parse(text).map_err(|error| Re2Error::Syntax(error.kind().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(expression: &str, text: &str) -> bool {
        regex::Regex::new(&translate(expression).unwrap()).unwrap().is_match(text)
    }

    #[test]
    fn classes_and_boundaries_are_about_ascii() {
        for (expression, yes, no) in [
            (r"^\d$", "7", "\u{0663}"),
            (r"^\w$", "_", "é"),
            (r"^[\w.-]$", "-", "é"),
            (r"^\s$", "\t", "\u{000b}"),
            (r"^\W$", "é", "a"),
            (r"^[^\d]$", "\u{0663}", "3"),
            (r"^[\D]$", "\u{0663}", "3"),
            (r"^\S$", "\u{000b}", " "),
            (r"a\b.", "aé", "ab"),
        ] {
            assert!(matches(expression, yes), "{expression} {yes:?}");
            assert!(!matches(expression, no), "{expression} {no:?}");
        }
    }

    #[test]
    fn what_is_the_same_in_both_stays() {
        for (expression, yes, no) in [
            ("^(?:/usr/bin/(?:git|hg))$", "/usr/bin/git", "/usr/bin/gitx"),
            ("^(?:/opt/[^/]*/x)$", "/opt/é/x", "/opt/a/b/x"),
            ("^(?i:git)$", "GIT", "gix"),
            ("^(?:a.b)$", "aéb", "a\nb"),
            ("^(?s:a.b)$", "a\nb", "ab"),
            (r"^(?:\x41\.\pL{2,3})$", "A.éé", "A.é"),
            ("^(?:[[:alpha:]-]+)$", "a-b", "a1"),
            (r"^[\[&\]]{3}$", "[&]", "[a]"),
            ("^a{2}$", "aa", "a"),
        ] {
            assert!(matches(expression, yes), "{expression} {yes:?}");
            assert!(!matches(expression, no), "{expression} {no:?}");
        }
    }

    #[test]
    fn what_means_something_else_here_is_refused() {
        for expression in [
            "[a[b]]",
            "[a&&b]",
            "[a--b]",
            "[a~~b]",
            "(?x)a b",
            "(?R)a",
            "(?-u)a",
            r"\<a",
            r"\B",
            r"a\b{start}",
        ] {
            assert!(
                matches!(translate(expression), Err(Re2Error::Differs(_))),
                "{expression}: {:?}",
                translate(expression)
            );
        }
        for expression in ["[a[b]", "(", "a**{", r"\C", r"\Qa\E", r"\1", "(?=a)", "a{b", "a{,2}"] {
            assert!(
                matches!(translate(expression), Err(Re2Error::Syntax(_))),
                "{expression}: {:?}",
                translate(expression)
            );
        }
        assert!(translate(&format!("{}a{}", "(".repeat(300), ")".repeat(300))).is_err());
    }
}
