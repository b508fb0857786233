//! What lenient servers could take for TLS or HTTP, and the gate cannot read as such.
//!
//! Pure. Asked where a row looks at protocols, about beginnings that would otherwise be "something else": such a row
//! must not be evaded by an old form of ClientHello, a method in small letters, a strange space, or a line that is
//! finished late.

use crate::first_bytes::{Form, LONGEST, Reading};

/// Refuses a beginning that passes for TLS or HTTP; `None` for anything else.
pub(crate) fn read(bytes: &[u8]) -> Option<Reading> {
    match (passes_for_tls(bytes), passes_for_http(bytes)) {
        (Passes::Yes, _) => {
            Some(Reading::Bad(Form::Tls, "its first bytes look like TLS and cannot be read as such"))
        }
        (_, Passes::Yes) => {
            Some(Reading::Bad(Form::Http, "its first line looks like HTTP and cannot be read as such"))
        }
        (Passes::No, Passes::No) => None,
        _ if bytes.len() >= LONGEST => Some(Reading::Bad(Form::Reset, "its first line is over 16 KiB")),
        _ => Some(Reading::More),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passes {
    Yes,
    No,
    /// More bytes will tell.
    Maybe,
}

/// A ClientHello in the record of SSL 2, which servers of later versions take (RFC 5246, E.2), or a record of TLS that
/// no ClientHello begins with: servers pass over warnings and empty records.
fn passes_for_tls(bytes: &[u8]) -> Passes {
    match bytes {
        [0x80..=0xff, _, 1, ..] | [0x14..=0x17, 3, ..] => Passes::Yes,
        [] | [0x80..=0xff] | [0x80..=0xff, _] | [0x14..=0x17] => Passes::Maybe,
        _ => Passes::No,
    }
}

/// What servers pass over as space: that of C and of Python, which reads heads as Latin-1.
fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | 0x1c..=b' ' | 0x85 | 0xa0)
}

fn passes_for_http(bytes: &[u8]) -> Passes {
    // Some servers strip control characters, too.
    let padding = bytes.iter().take_while(|byte| is_space(**byte) || byte.is_ascii_control()).count();
    let (padding, text) = bytes.split_at(padding);
    match text.first() {
        None if padding.iter().all(|byte| is_space(*byte)) => return Passes::Maybe,
        Some(byte) if byte.is_ascii_alphabetic() => {}
        // Numbers of a binary protocol are control characters, too, and may be all that its client says at first.
        None | Some(_) => return Passes::No,
    }
    let end = text.iter().position(|byte| *byte == b'\n');
    let line = &text[..end.unwrap_or(text.len())];
    if line.windows(5).any(|word| word.eq_ignore_ascii_case(b"HTTP/")) {
        return Passes::Yes;
    }
    let mut words = line.split(|byte| is_space(*byte)).filter(|word| !word.is_empty());
    let (method, target) = (words.next().unwrap_or_default(), words.next());
    // A method has no NUL in it, but what follows may: some servers cut it out, or the line off there.
    if method.contains(&0) {
        return Passes::No;
    }
    if end.is_none() {
        return Passes::Maybe;
    }
    // HTTP/0.9 names itself nowhere: "GET /path", and any name after GET.
    let named = target.is_some_and(|target| {
        method == b"GET"
            || target.starts_with(b"/")
            || target.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"http"))
    });
    if named { Passes::Yes } else { Passes::No }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(bytes: &[u8]) -> Option<Form> {
        match read(bytes) {
            Some(Reading::Bad(form, _)) => Some(form),
            None => None,
            other => panic!("{bytes:?}: {other:?}"),
        }
    }

    #[test]
    fn what_some_servers_strip_before_a_method_hides_no_request() {
        for before in [
            " ", "\t", "\x0b", "\x0c", "\r", "\n", "\x1c", "\x1d", "\x1e", "\x1f", "\0", "\x01", "\x7f",
            "\r\n ",
        ] {
            for line in ["POST /x HTTP/1.1\r\n", "post /x HTTP/1.1\r\n", "GET /x\r\n"] {
                let request = format!("{before}{line}");
                assert_eq!(form(request.as_bytes()), Some(Form::Http), "{request:?}");
            }
            let other = format!("{before}EHLO x\r\n");
            assert_eq!(form(other.as_bytes()), None, "{other:?}");
        }
        for before in [0x85, 0xa0] {
            assert_eq!(form(&[&[before], &b"POST /x HTTP/1.1\r\n"[..]].concat()), Some(Form::Http));
            assert_eq!(form(&[&[before], &b"EHLO x\r\n"[..]].concat()), None);
        }
        assert_eq!(read(b" \t\r\n"), Some(Reading::More));
        assert_eq!(read(b"\0\0\0\x08\x04\xd2\x16\x2f"), None, "a number of a binary protocol");
        assert_eq!(read(b"\x04\0\0\0\x05\0\0\0\0"), None);
    }

    #[test]
    fn a_nul_in_a_line_hides_no_request_and_one_in_its_first_word_is_another_protocol() {
        for line in [
            &b"POST /x?\0 HTTP/1.1\r\n"[..],
            b"POST /x\0\r\n",
            b"POST \0/x HTTP/1.1",
            b"GET\0 /x HTTP/1.1\r\n",
            b"GET \0\r\n",
        ] {
            assert_eq!(form(line), Some(Form::Http), "{line:?}");
        }
        assert_eq!(read(b"POST /x?\0"), Some(Reading::More), "the rest may come later");
        for line in [&b"AMQP\0\0\x09\x01"[..], b"T\0\x03\0\0user\0me\0", b"GET\0/x\r\n", b"STAT x\0\r\n"] {
            assert_eq!(form(line), None, "{line:?}");
        }
    }

    #[test]
    fn a_request_without_a_version_is_one_whatever_the_space_in_it() {
        for line in [
            "GET\t/x\r\n",
            "GET  /x\n",
            "get /x\r\n",
            "GET x\r\n",
            "POST HTTP://a.com\r\n",
            "\x0cGET\x0b/x\n",
        ] {
            assert_eq!(form(line.as_bytes()), Some(Form::Http), "{line:?}");
        }
        for line in ["get x\r\n", "GETS x\r\n", "GET\r\n", "HELO htt\r\n"] {
            assert_eq!(form(line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn a_hello_in_the_form_of_ssl_2_or_behind_another_record_passes_for_tls() {
        for bytes in [
            &b"\x80\x2e\x01\x03\x03"[..],
            b"\xff\xff\x01",
            b"\x15\x03\x01\0\x02\x01\x5a",
            b"\x14\x03\x03\0\x01\x01",
            b"\x16\x03\x01\0\0\x16\x03\x01",
        ] {
            assert_eq!(form(bytes), Some(Form::Tls), "{bytes:?}");
        }
        for bytes in
            [&b"\x80\x2e\x02\x03\x03"[..], b"\x7f\x2e\x01", b"\x15\x04\x01", b"\x18\x03\x01", b"\x13\x03"]
        {
            assert_eq!(form(bytes), None, "{bytes:?}");
        }
        for bytes in [&b"\x80"[..], b"\x80\x2e", b"\x15"] {
            assert_eq!(read(bytes), Some(Reading::More), "{bytes:?}");
        }
    }
}
