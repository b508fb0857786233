//! What the rows look at beyond subject, destination and port: the protocol of a connection, or one HTTP request of it.
//!
//! Pure. The path of a request is taken as it was written, without `?` and what follows. Servers do not agree on what
//! some paths mean: one resolves `/a/../b`, another decodes `%2f`, and a rule about the path would then decide about
//! something else than what is served. Such a path is doubtful, and no rule about paths can decide it.

use clawsec_proto as pb;
use hyper::{Method, Uri};

use crate::first_bytes::Observation;

/// What is known about a connection when the rows are walked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Seen {
    /// The protocol of its first bytes. HTTP conditions do not hold for it: inside TLS no request can be read, so a row
    /// with them is passed over there, whatever its verdict.
    Protocol(pb::ObservedProtocol),
    /// One request of a connection that is read as HTTP/1.
    Request(Request),
}

impl Seen {
    /// The protocol of the connection.
    pub(crate) fn protocol(&self) -> pb::ObservedProtocol {
        match self {
            Self::Protocol(protocol) => *protocol,
            Self::Request(_) => pb::ObservedProtocol::Http,
        }
    }

    /// The request, if it is one.
    pub(crate) fn request(&self) -> Option<&Request> {
        match self {
            Self::Protocol(_) => None,
            Self::Request(request) => Some(request),
        }
    }
}

/// What was seen, with the host that it names, for the rows and for whoever is told.
#[derive(Debug, Clone)]
pub(crate) struct Sight {
    /// The first bytes; for a request, its own head.
    pub(crate) observation: Observation,
    /// Set when requests are decided one by one.
    pub(crate) request: Option<Request>,
}

impl From<Observation> for Sight {
    fn from(observation: Observation) -> Self {
        Self { observation, request: None }
    }
}

impl Sight {
    /// Without the host.
    pub(crate) fn seen(&self) -> Seen {
        match &self.request {
            Some(request) => Seen::Request(request.clone()),
            None => Seen::Protocol(self.observation.protocol()),
        }
    }
}

/// Method and path of one request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Request {
    /// As it was written.
    pub(crate) method: String,
    /// As it was written, without `?` and what follows.
    pub(crate) path: String,
    /// What a server may take the path for.
    pub(crate) reading: PathReading,
}

/// What a server may take a path for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum PathReading {
    /// What it is.
    Plain,
    /// This, when it decodes what need not have been encoded. A row that permits must match both forms, any other one.
    Decoded(String),
    /// Nobody can tell; the reason.
    Doubtful(&'static str),
}

impl Request {
    /// Of a request line.
    pub(crate) fn new(method: &Method, target: &Uri) -> Self {
        let path = target.path().to_owned();
        Self { method: method.as_str().to_owned(), reading: read_path(&path), path }
    }
}

/// Characters that a path may hold as they are (RFC 3986, 3.3, `pchar`). Encoding them changes nothing for most servers.
fn is_pchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
}

fn read_path(path: &str) -> PathReading {
    if !path.is_ascii() {
        return PathReading::Doubtful("it is not ASCII");
    }
    if path.contains('\\') {
        return PathReading::Doubtful("it has a backslash");
    }
    let mut decoded = String::with_capacity(path.len());
    let mut changed = false;
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        decoded.push_str(&rest[..at]);
        let digits = rest.get(at + 1..at + 3).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
            return PathReading::Doubtful("it has a \"%\" that encodes nothing");
        };
        match byte {
            b'.' => return PathReading::Doubtful("it has an encoded \".\""),
            b'/' | b'\\' => return PathReading::Doubtful("it has an encoded slash"),
            b'%' => return PathReading::Doubtful("it has an encoded \"%\""),
            ..0x20 | 0x7f => return PathReading::Doubtful("it has an encoded control character"),
            _ if is_pchar(byte) => {
                decoded.push(char::from(byte));
                changed = true;
            }
            _ => decoded.push_str(&rest[at..at + 3]),
        }
        rest = &rest[at + 3..];
    }
    decoded.push_str(rest);
    match doubtful_segment(&decoded) {
        Some(why) => PathReading::Doubtful(why),
        None if changed => PathReading::Decoded(decoded),
        None => PathReading::Plain,
    }
}

/// Segments that servers leave out or resolve. A final `/` is none.
fn doubtful_segment(path: &str) -> Option<&'static str> {
    let segments = path.strip_prefix('/').unwrap_or(path);
    let last = segments.split('/').count() - 1;
    segments.split('/').enumerate().find_map(|(index, segment)| {
        // Some servers cut parameters off before they look: "/..;x/" is "/../" to them.
        let name = segment.split(';').next().unwrap_or(segment);
        match name {
            "." | ".." => Some("it has a \".\" or \"..\" as a part"),
            "" if index < last => Some("it has an empty part"),
            "" if !segment.is_empty() => Some("it has a part that is only parameters"),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(target: &str) -> (String, PathReading) {
        let request = Request::new(&Method::GET, &target.parse().expect("a target"));
        (request.path, request.reading)
    }

    #[test]
    fn a_path_is_what_stands_before_the_question_mark_in_either_form_of_target() {
        for target in ["/a/b", "/a/b?x=/../%2e", "http://h.example:80/a/b?c", "/a/b#part"] {
            assert_eq!(reading(target), ("/a/b".to_owned(), PathReading::Plain), "{target}");
        }
        for (target, path) in
            [("/", "/"), ("http://h.example", "/"), ("*", "*"), ("/?a", "/"), ("/a/", "/a/")]
        {
            assert_eq!(reading(target), (path.to_owned(), PathReading::Plain), "{target}");
        }
    }

    #[test]
    fn a_path_that_servers_read_differently_is_doubtful_and_its_near_misses_are_not() {
        for doubtful in [
            "/a/../b",
            "/a/./b",
            "/a/..",
            "/.",
            "//a",
            "/a//b",
            "/a//",
            "/%2e%2e/b",
            "/a%2Fb",
            "/a%2fb",
            "/a%5cb",
            "/a\\b",
            "/..;x=y/b",
            "/.;/b",
            "/;x/b",
            "/%252e",
            "/a%00",
            "/a%0a",
            "/a%",
            "/a%4",
            "/a%zz",
            "http://h.example/a/../b",
        ] {
            assert!(matches!(reading(doubtful).1, PathReading::Doubtful(_)), "{doubtful}");
        }
        for plain in
            ["/a..b", "/...", "/a.", "/.well-known/x", "/a%20b", "/a;v=1/b", "/a/b/", "/%e4", "/~a@b:c"]
        {
            assert_eq!(reading(plain), (plain.to_owned(), PathReading::Plain));
        }
    }

    #[test]
    fn what_need_not_be_encoded_is_shown_decoded_beside_the_written_form() {
        let (path, reading) = reading("/%61dmin/%40x%20y");
        assert_eq!(path, "/%61dmin/%40x%20y");
        assert_eq!(reading, PathReading::Decoded("/admin/@x%20y".into()));
    }
}
