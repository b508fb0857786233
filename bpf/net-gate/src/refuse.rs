//! Saying no in the client's own protocol.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::RecvFlags;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::first_bytes::Form;
use crate::live;

/// Alert record, TLS 1.2 framing, level fatal: `access_denied` (RFC 8446, 6.2).
const ALERT_DENIED: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 49];
/// `internal_error`.
const ALERT_FAILED: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 80];

/// How long and how much of what the client still sends is read, so that a reset does not overtake the answer.
const DRAIN_TIME: Duration = Duration::from_secs(2);
const DRAIN_BYTES: usize = 256 * 1024;
/// Longest message that is passed on.
const LONGEST_MESSAGE: usize = 512;

/// What is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The policy or a person said no.
    Denied,
    /// It was allowed, and the other side could not be reached.
    Failed,
}

/// Tells the client, and ends the connection.
pub(crate) async fn refuse(client: &Arc<TcpStream>, form: Form, kind: Kind, message: &str, rule: &str) {
    let answer = match (form, kind) {
        (Form::Reset, _) => {
            live::abort(client);
            return;
        }
        (Form::Tls, Kind::Denied) => ALERT_DENIED.to_vec(),
        (Form::Tls, Kind::Failed) => ALERT_FAILED.to_vec(),
        (Form::Http, kind) => http(kind, message, rule).into_bytes(),
    };
    // A client that does not take the answer or does not end is cut off; it had its time.
    if !matches!(timeout(DRAIN_TIME, say(client, &answer)).await, Ok(Ok(()))) {
        live::abort(client);
    }
}

async fn say(client: &TcpStream, answer: &[u8]) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    // The request first: unread bytes at the end would turn the orderly end into a reset.
    // Straight from the socket, since the runtime was told that these bytes are known.
    for _ in 0..DRAIN_BYTES / buffer.len() {
        match rustix::net::recv(client, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((count, _)) if count == buffer.len() => {}
            _ => break,
        }
    }
    let mut left = answer;
    while !left.is_empty() {
        client.writable().await?;
        match client.try_write(left) {
            Ok(written) => left = &left[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    rustix::net::shutdown(client, rustix::net::Shutdown::Write)?;
    drain(client, &mut buffer).await
}

/// After an answer that came before the end of the request: reads what the client still sends until it has ended, for a
/// bounded time, and cuts it off then.
pub(crate) async fn linger(client: &TcpStream) {
    let mut buffer = vec![0; 16 * 1024];
    if !matches!(timeout(DRAIN_TIME, drain(client, &mut buffer)).await, Ok(Ok(()))) {
        live::abort(client);
    }
}

async fn drain(client: &TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    let mut drained = 0;
    while drained < DRAIN_BYTES {
        client.readable().await?;
        match client.try_read(buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => drained += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The response, for a connection that no library reads.
fn http(kind: Kind, message: &str, rule: &str) -> String {
    let body = body(kind, message, rule);
    let rule = printable(rule);
    let status = match kind {
        Kind::Denied => "403 Forbidden",
        Kind::Failed => "502 Bad Gateway",
    };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\nX-Clawsec-Rule: {rule}\r\n\r\n{body}",
        body.len()
    )
}

/// The line that a person reads. Nothing in it but our own words and the policy's, made printable.
pub(crate) fn body(kind: Kind, message: &str, rule: &str) -> String {
    let (message, rule) = (printable(message), printable(rule));
    match kind {
        Kind::Denied => format!("clawsec: access denied: {message} (rule {rule})\n"),
        Kind::Failed => format!("clawsec: not reachable: {message} (rule {rule})\n"),
    }
}

/// Printable ASCII only, and not too much of it: the text may quote what a sandbox or a server wrote.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .take(LONGEST_MESSAGE)
        .map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_add_headers_or_leave_the_line() {
        let response = http(Kind::Denied, "no\r\nSet-Cookie: x\u{1b}[31m", "r\r\nX: y");
        assert_eq!(response.matches("\r\n").count(), 7);
        assert!(response.contains("X-Clawsec-Rule: r??X: y\r\n"));
        assert!(response.ends_with("clawsec: access denied: no??Set-Cookie: x?[31m (rule r??X: y)\n"));
    }

    #[test]
    fn the_length_is_that_of_the_body() {
        let response = http(Kind::Failed, &"m".repeat(5000), "r");
        let (head, body) = response.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert!(body.len() < 600);
    }
}
