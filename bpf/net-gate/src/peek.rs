//! Looking at the first bytes of a connection while they stay in its socket.

use std::io;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::first_bytes::{self, Care, Form, LONGEST, Observation, Reading};

/// Time for a first message to become complete.
const COMPLETE_TIME: Duration = Duration::from_secs(5);
/// Time for the first byte, where it is not known whether the client speaks first.
const FIRST_TIME: Duration = Duration::from_millis(200);

/// What the beginning of a connection says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// This was seen.
    Seen(Observation),
    /// It is not acceptable.
    Bad(Form, &'static str),
    /// The client closed before it said anything.
    Closed,
}

/// Looks at the beginning of a connection.
pub(crate) async fn beginning(client: &TcpStream, care: Care) -> Beginning {
    let strict = care == Care::Strict;
    let deadline = Instant::now() + COMPLETE_TIME;
    let first_deadline = if strict { deadline } else { Instant::now() + FIRST_TIME };
    let mut buffer = vec![0; LONGEST];
    let mut have = 0;
    loop {
        let until = if have == 0 { first_deadline } else { deadline };
        let more = match timeout_at(until, peek_more(client, &mut buffer, have)).await {
            Err(_) if strict => {
                return incomplete(&buffer[..have], "its first message is not complete after 5 s");
            }
            Err(_) => return late(&buffer[..have], care),
            Ok(Err(_)) => return Beginning::Closed,
            Ok(Ok(count)) => count,
        };
        if more == have {
            return match have {
                0 => Beginning::Closed,
                _ if strict => incomplete(&buffer[..have], "it ended within its first message"),
                _ => late(&buffer[..have], care),
            };
        }
        have = more;
        match first_bytes::read(&buffer[..have], care) {
            Reading::More => {}
            Reading::Seen(observation) => return Beginning::Seen(observation),
            Reading::Bad(form, why) => return Beginning::Bad(form, why),
        }
    }
}

fn incomplete(bytes: &[u8], why: &'static str) -> Beginning {
    Beginning::Bad(first_bytes::form_guess(bytes), why)
}

/// No more came in time, on a port where anything may be spoken. Half a ClientHello is refused there too, and half a
/// line of text where a row looks at the protocol.
fn late(bytes: &[u8], care: Care) -> Beginning {
    match first_bytes::form_guess(bytes) {
        _ if bytes.is_empty() => Beginning::Seen(Observation::Nothing),
        Form::Tls => Beginning::Bad(Form::Tls, "its ClientHello is not complete after 5 s"),
        form if care == Care::Close => {
            Beginning::Bad(form, "its first line is not complete after 5 s, and a rule looks at the protocol")
        }
        Form::Http | Form::Reset => Beginning::Seen(Observation::Other),
    }
}

/// Waits until more than `have` bytes are there, and returns how many; `have` itself: no more will come.
async fn peek_more(client: &TcpStream, buffer: &mut [u8], have: usize) -> io::Result<usize> {
    loop {
        let ready = client.ready(Interest::READABLE).await?;
        let peeked = client.try_io(Interest::READABLE, || {
            let (count, _) = recv(client, &mut *buffer, RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
            // As many as before is no news; WouldBlock makes the next round wait for some.
            if count > have || count == 0 { Ok(count) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        match peeked {
            Ok(0) => return Ok(have),
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if ready.is_read_closed() {
                    return Ok(have);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Who says the first word on a connection whose client was silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// The client, after all.
    Client,
    /// The server, or nobody: one of them has ended its side.
    Server,
}

/// Waits for the first byte, from either side, and leaves it where it is.
pub(crate) async fn first_word(client: &TcpStream, upstream: &TcpStream) -> First {
    let (mut ours, mut theirs) = ([0; 1], [0; 1]);
    // When both have spoken, the client did so without knowing the server's word.
    tokio::select! {
        biased;
        said = peek_more(client, &mut ours, 0) => match said {
            Ok(1..) => First::Client,
            Ok(0) | Err(_) => First::Server,
        },
        _ = peek_more(upstream, &mut theirs, 0) => First::Server,
    }
}
