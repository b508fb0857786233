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
    /// These different forms: as written, with the digits of escapes in capitals, and decoded. Never empty. A row that
    /// permits must match them all, any other one.
    Forms(Vec<String>),
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

fn read_path(path: &str) -> PathReading {
    let unclear = if !path.is_ascii() {
        Some("it is not ASCII")
    } else if path.contains('\\') {
        Some("it has a backslash")
    } else if path.contains(';') {
        Some("it has a \";\", where some servers cut off the rest of the part")
    } else {
        doubtful_segment(path)
    };
    match unclear.map_or_else(|| unescape(path), Err) {
        Err(why) => PathReading::Doubtful(why),
        Ok([capitals, decoded]) => {
            let mut forms = vec![path.to_owned(), capitals, decoded];
            // Escapes are what differs, so that equal forms stand side by side.
            forms.dedup();
            PathReading::Forms(forms)
        }
    }
}

/// The path with the digits of its escapes in capitals, and decoded; or why nobody can tell what they mean.
fn unescape(path: &str) -> Result<[String; 2], &'static str> {
    let mut capitals = String::with_capacity(path.len());
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let digits = rest.get(at + 1..at + 3).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let byte = byte.ok_or("it has a \"%\" that encodes nothing")?;
        match byte {
            b'.' => return Err("it has an encoded \".\""),
            b'/' | b'\\' => return Err("it has an encoded slash"),
            b'%' => return Err("it has an encoded \"%\""),
            b';' => return Err("it has an encoded \";\""),
            ..0x20 | 0x7f => return Err("it has an encoded control character"),
            _ => {}
        }
        capitals.push_str(&rest[..at]);
        capitals.push_str(&rest[at..at + 3].to_ascii_uppercase());
        decoded.extend(&rest.as_bytes()[..at]);
        decoded.push(byte);
        rest = &rest[at + 3..];
    }
    capitals.push_str(rest);
    decoded.extend(rest.as_bytes());
    let decoded = String::from_utf8(decoded).map_err(|_| "it has encoded bytes that are not UTF-8")?;
    Ok([capitals, decoded])
}

/// Segments that servers leave out or resolve. A final `/` is none. No escape makes one: those of `.` and `/` are
/// doubtful by themselves.
fn doubtful_segment(path: &str) -> Option<&'static str> {
    let segments = path.strip_prefix('/').unwrap_or(path);
    let last = segments.split('/').count() - 1;
    segments.split('/').enumerate().find_map(|(index, segment)| match segment {
        "." | ".." => Some("it has a \".\" or \"..\" as a part"),
        "" if index < last => Some("it has an empty part"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(target: &str) -> (String, PathReading) {
        let request = Request::new(&Method::GET, &target.parse().expect("a target"));
        (request.path, request.reading)
    }

    fn forms(forms: &[&str]) -> PathReading {
        PathReading::Forms(forms.iter().map(|form| (*form).to_owned()).collect())
    }

    #[test]
    fn a_path_is_what_stands_before_the_question_mark_in_either_form_of_target() {
        for target in ["/a/b", "/a/b?x=/../%2e", "http://h.example:80/a/b?c", "/a/b#part"] {
            assert_eq!(reading(target), ("/a/b".to_owned(), forms(&["/a/b"])), "{target}");
        }
        for (target, path) in
            [("/", "/"), ("http://h.example", "/"), ("*", "*"), ("/?a", "/"), ("/a/", "/a/")]
        {
            assert_eq!(reading(target), (path.to_owned(), forms(&[path])), "{target}");
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
            "/admin;x=1",
            "/secret;a/x",
            "/admin%3Bx",
            "/admin%3b",
            "/%e4",
            "/%C3",
            "/%C3%28",
            "/%ED%A0%80",
            "/%C0%AE",
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
        for plain in ["/a..b", "/...", "/a.", "/.well-known/x", "/a:b,c=d", "/a/b/", "/[x]", "/~a@b:c"] {
            assert_eq!(reading(plain), (plain.to_owned(), forms(&[plain])));
        }
    }

    #[test]
    fn a_path_with_escapes_is_read_as_written_in_capitals_and_decoded() {
        for (path, expected) in [
            ("/%61dmin/%40x%20y", &["/%61dmin/%40x%20y", "/admin/@x y"][..]),
            ("/caf%C3%A9", &["/caf%C3%A9", "/caf\u{e9}"]),
            ("/caf%c3%A9", &["/caf%c3%A9", "/caf%C3%A9", "/caf\u{e9}"]),
            ("/a/%5bx%5D", &["/a/%5bx%5D", "/a/%5Bx%5D", "/a/[x]"]),
        ] {
            assert_eq!(reading(path), (path.to_owned(), forms(expected)));
        }
    }
}
