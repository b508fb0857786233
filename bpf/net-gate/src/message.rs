//! HTTP messages as they are read, refused, and sent on.

use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};

use crate::name;
use crate::refuse::{self, Kind};
use crate::table::Destination;

/// Rule id of requests that are not forwarded whatever the rows say.
pub(crate) const NOT_CARRIED: &str = "gate/http-request";

/// The body of an answer: the server's, or one line of the gate's own.
pub(crate) type Body = Either<Incoming, Full<Bytes>>;

/// The one host that a request names, in its one spelling. Two, or one that is none, are refused.
pub(crate) fn host_of(request: &Request<Incoming>) -> Result<Option<String>, &'static str> {
    const BAD: &str = "the Host of the request is no host name";
    const TWO: &str = "the request names two hosts";
    let mut values = request.headers().get_all(header::HOST).iter();
    let named = match (values.next(), values.next()) {
        (None, _) => None,
        (Some(value), None) => {
            let value = value.to_str().map_err(|_| BAD)?;
            Some(name::normalise_authority(value.trim()).ok_or(BAD)?)
        }
        (Some(_), Some(_)) => return Err(TWO),
    };
    let target = match request.uri().authority() {
        Some(authority) => Some(name::normalise_authority(authority.as_str()).ok_or(BAD)?),
        None => None,
    };
    match (named, target) {
        (Some(named), Some(target)) if named != target => Err(TWO),
        (named, target) => Ok(named.or(target)),
    }
}

/// What would take the connection out of the gate's sight, or be read differently by the server.
pub(crate) fn not_carried<B>(request: &Request<B>) -> Option<&'static str> {
    if request.method() == Method::CONNECT {
        return Some("CONNECT is refused where a rule looks at requests: what follows could not be read");
    }
    if request.method().as_str().bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Some("the method of the request is not in capitals");
    }
    if request.headers().contains_key(header::UPGRADE) {
        return Some("Upgrade is refused where a rule looks at requests: what follows could not be read");
    }
    if request.uri().scheme_str().is_some_and(|scheme| scheme != "http") {
        return Some("the target of the request is not http");
    }
    None
}

/// An answer of the gate's own.
pub(crate) fn say(kind: Kind, message: &str, rule: &str, close: bool) -> Response<Body> {
    let text = |text: &'static str| HeaderValue::from_static(text);
    let mut response = Response::new(Either::Right(Full::from(refuse::body(kind, message, rule))));
    *response.status_mut() = match kind {
        Kind::Denied => StatusCode::FORBIDDEN,
        Kind::Failed => StatusCode::BAD_GATEWAY,
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, text("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, text("no-store"));
    // Printable ASCII is a header's value.
    if let Ok(rule) = HeaderValue::from_str(&refuse::printable(rule)) {
        headers.insert(HeaderName::from_static("x-clawsec-rule"), rule);
    }
    if close {
        headers.insert(header::CONNECTION, text("close"));
    }
    response
}

/// Headers about one of the two connections (RFC 9110, 7.6.1). What else `Connection` names goes on: it can only be
/// what the server would see on a direct connection.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    for name in ["connection", "keep-alive", "proxy-connection", "upgrade"] {
        headers.remove(name);
    }
}

/// The request as it goes on: for this server, in the form for servers, and with its one host.
pub(crate) fn onward(
    mut request: Request<Incoming>,
    destination: &Destination,
    port: u16,
) -> Request<Incoming> {
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    remove_hop_by_hop(headers);
    if !headers.contains_key(header::HOST) {
        let host = authority.unwrap_or_else(|| match port {
            80 => destination.to_string(),
            port => format!("{destination}:{port}"),
        });
        // A host name that was looked up, or an authority that was parsed.
        if let Ok(host) = HeaderValue::from_str(&host) {
            headers.insert(header::HOST, host);
        }
    }
    request
}

/// The server's answer as it goes to the client.
pub(crate) fn back(mut response: Response<Incoming>) -> Response<Body> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let why = "the server changed to another protocol, which nobody asked for";
        return say(Kind::Failed, why, NOT_CARRIED, true);
    }
    // hyper writes what fits the client's version.
    let ends = response.version() == Version::HTTP_10 || names_close(response.headers());
    *response.version_mut() = Version::HTTP_11;
    remove_hop_by_hop(response.headers_mut());
    if ends {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response.map(Either::Left)
}

fn names_close(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|value| value.split(',').any(|word| word.trim().eq_ignore_ascii_case("close")))
    })
}
