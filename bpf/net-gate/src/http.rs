//! A connection that is read as HTTP/1, so that each of its requests is decided by itself.
//!
//! hyper reads requests on the sandbox's side and writes them on the upstream's, so that what is forwarded is what was
//! decided, in hyper's framing: a request with two lengths, or a length and chunks, never gets this far. Bodies and
//! trailers are passed on as they come. The upstream is dialled for the first request that is allowed and serves all
//! of them; when it ends, so does the client's connection, after the answer that is under way.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use clawsec_proto as pb;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder as Client, SendRequest};
use hyper::server::conn::http1::Builder as Server;
use hyper::service::service_fn;
use hyper::{Request as HyperRequest, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::connection::{CHANGED, Unreached};
use crate::decide::Final;
use crate::dial::{self, DialError};
use crate::first_bytes::Observation;
use crate::live::{self, Connection};
use crate::message::{self, Body, NOT_CARRIED};
use crate::refuse::{self, Kind};
use crate::request::{Request, Sight};
use crate::story::Story;
use crate::stream::Stream;
use crate::table::{Ruling, Table};

/// Longest head of a request or a response, in bytes.
const LONGEST_HEAD: usize = 64 * 1024;

/// The connection has to be ended without an answer: nobody waits for one, or a direct one would have ended, too.
#[derive(Debug, thiserror::Error)]
#[error("the connection ends without an answer")]
struct NoAnswer;

/// What the address of a connection was checked under last: the epoch, the rule of the row, and the rule that an answer
/// named. What may be dialled depends on all three.
type Checked = (u64, Arc<str>, Option<Arc<str>>);

/// The server's side.
#[derive(Debug)]
struct Upstream {
    requests: SendRequest<Incoming>,
    stream: Arc<TcpStream>,
    checked: Checked,
    _task: AbortOnDropHandle<()>,
}

/// A connection whose requests are decided one by one.
struct Reading<'a> {
    story: &'a Story<'a>,
    connection: &'a Connection,
    upstream: Mutex<Option<Upstream>>,
    /// The server has ended its side.
    upstream_over: CancellationToken,
}

/// Serves a connection that began as HTTP to its end.
pub(crate) async fn serve(story: &Story<'_>, connection: &Connection, first: &Sight) {
    if first.observation == Observation::Http2 {
        let why =
            "HTTP/2 without TLS cannot be read here, and a rule looks at requests to this host; use HTTP/1.1";
        let ruling = story.ruling(&story.shared.table.load(), first);
        let denied = story.own_denial(&ruling, NOT_CARRIED, why);
        story.deny(first, first.observation.form(), denied).await;
        return;
    }
    let reading =
        Reading { story, connection, upstream: Mutex::default(), upstream_over: CancellationToken::new() };
    let client = TokioIo::new(Stream::new(connection.client.clone()));
    let service = service_fn(|request| reading.answer(request));
    let mut server = pin!(
        Server::new()
            // A client may end its side and wait for the answer.
            .half_close(true)
            .max_buf_size(LONGEST_HEAD)
            .preserve_header_case(true)
            .auto_date_header(false)
            .serve_connection(client, service)
    );
    let ended = tokio::select! {
        ended = server.as_mut() => ended,
        () = reading.upstream_over.cancelled() => {
            server.as_mut().graceful_shutdown();
            server.await
        }
    };
    match ended {
        Ok(()) => refuse::linger(&connection.client).await,
        Err(error) if error.is_parse() => {
            // hyper has answered 400.
            let why = format!("a request on this connection cannot be read ({error})");
            story.again().report(first, &mut Final::gate(pb::Verdict::Deny, NOT_CARRIED, &why));
            refuse::linger(&connection.client).await;
        }
        Err(_) => live::abort(&connection.client),
    }
}

impl Story<'_> {
    /// The same connection, seen now.
    fn again(&self) -> Self {
        Self { started: Instant::now(), ..self.clone() }
    }
}

impl Reading<'_> {
    /// Decides about one request, and gets its answer.
    async fn answer(&self, request: HyperRequest<Incoming>) -> Result<Response<Body>, NoAnswer> {
        let story = self.story.again();
        let host = message::host_of(&request);
        let seen_host = host.as_ref().ok().cloned().flatten();
        let sight = Sight {
            observation: Observation::Http(seen_host),
            request: Some(Request::new(request.method(), request.uri())),
        };
        let table = story.shared.table.load_full();
        let ruling = story.ruling(&table, &sight);
        let unfit = host.err().or_else(|| message::not_carried(&request));
        let refused = match unfit {
            Some(why) => Some(story.own_denial(&ruling, NOT_CARRIED, why)),
            None => story.refused_unasked(&table, &ruling, &sight),
        };
        if let Some(denied) = refused {
            return Ok(deny(&story, &sight, denied));
        }
        let decided = match story.decide(&ruling, &sight).await {
            Ok(decided) => decided,
            Err(gone) => {
                story.gone(&sight, &ruling, gone);
                return Err(NoAnswer);
            }
        };
        story.report_observed(&sight, &ruling, &decided);
        match decided.verdict {
            pb::Verdict::Allow | pb::Verdict::Log => self.forward(&story, &sight, decided, request).await,
            _ => Ok(deny(&story, &sight, decided)),
        }
    }

    /// Sends an allowed request on, and returns the server's answer.
    async fn forward(
        &self,
        story: &Story<'_>,
        sight: &Sight,
        mut decided: Final,
        request: HyperRequest<Incoming>,
    ) -> Result<Response<Body>, NoAnswer> {
        let mut upstream = self.upstream.lock().await;
        let reached = match upstream.as_mut() {
            Some(upstream) => self.recheck(story, sight, &decided, upstream),
            None => match self.dial(story, sight, &decided).await {
                Ok(made) => {
                    *upstream = Some(made);
                    Ok(())
                }
                Err(error) => Err(error),
            },
        };
        let error = match (reached, upstream.as_mut()) {
            (Ok(()), Some(upstream)) => {
                if upstream.requests.ready().await.is_err() {
                    let why = "allowed, but the server has closed the connection".into();
                    story.report(sight, &mut Final { message: why, ..decided });
                    return Err(NoAnswer);
                }
                story.report(sight, &mut decided);
                let request = message::onward(request, &story.destination, story.port);
                return match upstream.requests.send_request(request).await {
                    Ok(response) => Ok(message::back(response)),
                    Err(error) => {
                        tracing::debug!(sandbox = %story.shared.sandbox, %error, "a request was not answered");
                        let why = format!("the server did not answer ({error})");
                        Ok(message::say(Kind::Failed, &why, &decided.rule, true))
                    }
                };
            }
            (Err(Unreached::Dial(error)), _) => error,
            (Err(Unreached::Ended), _) | (Ok(()), None) => return Err(NoAnswer),
        };
        let (mut end, kind, why) = Story::not_reached(decided, error);
        story.report(sight, &mut end);
        Ok(message::say(kind, &why, &end.rule, false))
    }

    async fn dial(&self, story: &Story<'_>, sight: &Sight, decided: &Final) -> Result<Upstream, Unreached> {
        let table = story.shared.table.load_full();
        let checked = checked(&table, &story.ruling(&table, sight), decided);
        let stream = story.reach(self.connection, sight, decided).await?;
        let io = TokioIo::new(Stream::new(stream.clone()));
        let made = Client::new().preserve_header_case(true).max_buf_size(LONGEST_HEAD).handshake(io).await;
        let (requests, carrier) =
            made.map_err(|error| Unreached::Dial(DialError::Failed(error.to_string())))?;
        let over = self.upstream_over.clone().drop_guard();
        let task = tokio::spawn(async move {
            // Whoever waits for an answer is told the error.
            let _ = carrier.await;
            drop(over);
        });
        Ok(Upstream { requests, stream, checked, _task: AbortOnDropHandle::new(task) })
    }

    /// The address was dialled for another request: whether this one may go there, too.
    fn recheck(
        &self,
        story: &Story<'_>,
        sight: &Sight,
        decided: &Final,
        upstream: &mut Upstream,
    ) -> Result<(), Unreached> {
        let refused = |why: &str| Unreached::Dial(DialError::Refused(why.into()));
        let peer = upstream
            .stream
            .peer_addr()
            .map_err(|_| Unreached::Dial(DialError::Failed("the server has closed the connection".into())))?;
        let grant = story.grant(sight, peer.ip(), decided);
        if !self.connection.regrant(grant.clone()) {
            return Err(Unreached::Ended);
        }
        let table = story.shared.table.load_full();
        let ruling = story.ruling(&table, sight);
        let checked = checked(&table, &ruling, decided);
        if checked == upstream.checked {
            return Ok(());
        }
        if !story.shared.stands(&grant) {
            let opening = story.opening(&table, &ruling, decided.answered());
            return Err(refused(match dial::may_dial(&story.destination, &opening, peer.ip()) {
                true => CHANGED,
                false => "the rule does not allow the address that this connection leads to",
            }));
        }
        upstream.checked = checked;
        Ok(())
    }
}

fn checked(table: &Table, ruling: &Ruling, decided: &Final) -> Checked {
    (table.epoch, ruling.rule.clone(), decided.answered().map(Arc::from))
}

fn deny(story: &Story<'_>, sight: &Sight, mut denied: Final) -> Response<Body> {
    story.report(sight, &mut denied);
    message::say(Kind::Denied, &denied.message, &denied.rule, false)
}
