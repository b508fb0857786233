//! What the first bytes of a connection say about where it goes.
//!
//! Pure: bytes in, an observation out. Whoever reads the socket calls [`read`] again with more bytes while it says
//! [`Reading::More`].

use std::io::Cursor;

use clawsec_proto as pb;
use rustls::server::Acceptor;

use crate::lookalike;
use crate::name;

/// A ClientHello or an HTTP head that is longer is not read to its end, and is refused.
pub(crate) const LONGEST: usize = 16 * 1024;

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Observation {
    /// No byte: the server speaks first.
    Nothing,
    /// A TLS ClientHello, with the server name it asks for.
    Tls(Option<String>),
    /// A request head of HTTP/1, with the host it is for.
    Http(Option<String>),
    /// HTTP/2 without TLS: the host is inside compressed headers.
    Http2,
    /// Something else.
    Other,
}

/// Result of reading a beginning.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Not yet complete.
    More,
    /// Complete.
    Seen(Observation),
    /// Not acceptable, whatever follows.
    Bad(Form, &'static str),
}

/// The protocol in which a denial can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A TLS alert.
    Tls,
    /// An HTTP response.
    Http,
    /// A reset.
    Reset,
}

impl Observation {
    /// The protocol of a denial.
    pub(crate) fn form(&self) -> Form {
        match self {
            Self::Tls(_) => Form::Tls,
            Self::Http(_) | Self::Http2 => Form::Http,
            Self::Nothing | Self::Other => Form::Reset,
        }
    }

    /// The protocol, as rows and the contract call it.
    pub(crate) fn protocol(&self) -> pb::ObservedProtocol {
        match self {
            Self::Nothing => pb::ObservedProtocol::None,
            Self::Tls(_) => pb::ObservedProtocol::Tls,
            Self::Http(_) | Self::Http2 => pb::ObservedProtocol::Http,
            Self::Other => pb::ObservedProtocol::Other,
        }
    }

    /// The name in it.
    pub(crate) fn host(&self) -> Option<&str> {
        match self {
            Self::Tls(host) | Self::Http(host) => host.as_deref(),
            Self::Nothing | Self::Other | Self::Http2 => None,
        }
    }
}

/// How closely a beginning is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Care {
    /// What cannot be read is let through as [`Observation::Other`].
    Usual,
    /// A row looks at the protocol: what a server could take for TLS or HTTP, and is not read as such here, is refused.
    Close,
    /// On a port where TLS or HTTP is expected, the gate waits for it, and takes nothing it can't read (what is
    /// unreadable here may well be readable to the server, and name another host). SSH is let through, because forges
    /// offer it on 443.
    Strict,
}

impl Care {
    /// For a port. `looks` says whether a row looks at the protocol of connections to it.
    pub(crate) fn of(port: u16, looks: bool) -> Self {
        match port {
            80 | 443 | 8080 | 8443 => Self::Strict,
            _ if looks => Self::Close,
            _ => Self::Usual,
        }
    }
}

/// Reads the beginning of a connection.
pub(crate) fn read(bytes: &[u8], care: Care) -> Reading {
    let reading = match bytes.first() {
        None => return Reading::More,
        Some(0x16) => read_tls(bytes),
        Some(byte) if byte.is_ascii_uppercase() || matches!(byte, b'\r' | b'\n') => read_http(bytes),
        Some(_) => Reading::Seen(Observation::Other),
    };
    match (reading, care) {
        (Reading::More, _) if bytes.len() >= LONGEST => {
            Reading::Bad(form_guess(bytes), "its first message is over 16 KiB")
        }
        (Reading::Seen(Observation::Other), Care::Strict) if !is_ssh(bytes) => {
            match b"SSH-".starts_with(bytes) {
                true => Reading::More,
                false => Reading::Bad(form_guess(bytes), "its first bytes are neither TLS nor HTTP"),
            }
        }
        (Reading::Seen(Observation::Other), Care::Close) => {
            lookalike::read(bytes).unwrap_or(Reading::Seen(Observation::Other))
        }
        (other, _) => other,
    }
}

/// The protocol that unreadable bytes look like.
pub(crate) fn form_guess(bytes: &[u8]) -> Form {
    match bytes.first() {
        Some(0x16) => Form::Tls,
        Some(_) if starts_like_http(bytes) == Some(true) => Form::Http,
        _ => Form::Reset,
    }
}

fn is_ssh(bytes: &[u8]) -> bool {
    bytes.starts_with(b"SSH-")
}

/// Collects the records that carry the first handshake message, and has rustls read exactly these.
fn read_tls(bytes: &[u8]) -> Reading {
    const BAD: Reading = Reading::Bad(Form::Tls, "its ClientHello cannot be read");
    let mut at = 0;
    let mut handshake = 0;
    let mut wanted = None;
    let mut header: Vec<u8> = Vec::with_capacity(4);
    loop {
        let Some(record) = bytes.get(at..at + 5) else { return Reading::More };
        let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
        if record[0] != 0x16 || record[1] != 3 || length == 0 || length > LONGEST {
            return if at == 0 { Reading::Seen(Observation::Other) } else { BAD };
        }
        let Some(body) = bytes.get(at + 5..at + 5 + length) else { return Reading::More };
        header.extend(body.iter().copied().take(4 - header.len()));
        at += 5 + length;
        handshake += length;
        if let [kind, a, b, c] = header[..] {
            if kind != 1 {
                return BAD;
            }
            wanted.get_or_insert(4 + usize::from(a) * 65_536 + usize::from(b) * 256 + usize::from(c));
        }
        if wanted.is_some_and(|wanted| wanted > LONGEST) {
            return Reading::Bad(Form::Tls, "its ClientHello is over 16 KiB");
        }
        if wanted.is_some_and(|wanted| handshake >= wanted) {
            break;
        }
    }
    let mut acceptor = Acceptor::default();
    let mut hello = Cursor::new(&bytes[..at]);
    while usize::try_from(hello.position()).is_ok_and(|read| read < at) {
        match acceptor.read_tls(&mut hello) {
            Ok(0) | Err(_) => return BAD,
            Ok(_) => {}
        }
    }
    match acceptor.accept() {
        Ok(Some(accepted)) => match accepted.client_hello().server_name() {
            None => Reading::Seen(Observation::Tls(None)),
            Some(name) => match name::normalise(name) {
                Some(name) => Reading::Seen(Observation::Tls(Some(name))),
                None => Reading::Bad(Form::Tls, "the server name of its ClientHello is no host name"),
            },
        },
        Ok(None) | Err(_) => BAD,
    }
}

/// Whether bytes are `METHOD `; `None` while they may become it.
fn starts_like_http(bytes: &[u8]) -> Option<bool> {
    let method = bytes.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    match bytes.get(method) {
        _ if method > 20 => Some(false),
        None => None,
        Some(b' ') => Some(method >= 3),
        Some(_) => Some(false),
    }
}

fn read_http(bytes: &[u8]) -> Reading {
    // Empty lines before a request are skipped by servers (RFC 9112, 2.2), and by httparse.
    let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    match starts_like_http(&bytes[blank..]) {
        None => return Reading::More,
        Some(false) => return Reading::Seen(Observation::Other),
        Some(true) => {}
    }
    if bytes[blank..].starts_with(b"PRI * HTTP/2.0") {
        return Reading::Seen(Observation::Http2);
    }
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => Reading::More,
        Ok(httparse::Status::Complete(_)) => http_host(&request),
        Err(httparse::Error::TooManyHeaders) => Reading::Bad(Form::Http, "its request has over 128 headers"),
        Err(_) => Reading::Seen(Observation::Other),
    }
}

/// The one host that a request names. Two different ones leave it to the server which is meant, so they are refused.
fn http_host(request: &httparse::Request<'_, '_>) -> Reading {
    const BAD: Reading = Reading::Bad(Form::Http, "the Host of its request is no host name");
    const TWO: Reading = Reading::Bad(Form::Http, "its request names two hosts");
    let mut host = None;
    for header in request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host")) {
        if host.is_some() {
            return TWO;
        }
        let Ok(value) = std::str::from_utf8(header.value) else { return BAD };
        let Some(name) = name::normalise_authority(value.trim()) else { return BAD };
        host = Some(name);
    }
    let target = request.path.unwrap_or("/");
    let authority = match target.split_once("://") {
        _ if target.starts_with('/') || target == "*" => None,
        Some((_, rest)) => Some(rest.split(['/', '?', '#']).next().unwrap_or(rest)),
        None => Some(target),
    };
    if let Some(authority) = authority {
        let Some(name) = name::normalise_authority(authority) else { return BAD };
        if host.as_ref().is_some_and(|host| *host != name) {
            return TWO;
        }
        host = Some(name);
    }
    Reading::Seen(Observation::Http(host))
}

#[cfg(test)]
#[path = "first_bytes_tests.rs"]
mod tests;
