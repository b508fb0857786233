//! The connections of one sandbox that are alive, so that they can all be ended at once.
//!
//! Ending one is `connect(AF_UNSPEC)` on both of its sockets: the kernel sends a reset and throws away what was
//! queued, within the call, whatever the task that serves it is doing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::request::Seen;
use crate::table::Destination;

/// What is known about a live connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The sandbox's side.
    pub(crate) client: Arc<TcpStream>,
    /// Stops the task that serves it.
    pub(crate) stop: CancellationToken,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ended: bool,
    upstream: Option<Arc<TcpStream>>,
    grant: Option<Grant>,
}

/// Why a connection was let through.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) subject: Arc<str>,
    pub(crate) destination: Destination,
    pub(crate) port: u16,
    /// What the rows knew of it: for a connection that is read as HTTP, its last request.
    pub(crate) seen: Seen,
    /// The address that was dialled.
    pub(crate) peer: std::net::IpAddr,
    /// It was an answer to a question, not a row that allowed it: the rule that the answer named.
    pub(crate) answered: Option<Arc<str>>,
}

impl Connection {
    /// Notes the other side. `false`: the connection was ended meanwhile, and so is the other side now.
    pub(crate) fn establish(&self, upstream: Arc<TcpStream>, grant: Option<Grant>) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.ended {
            abort(&upstream);
            return false;
        }
        state.upstream = Some(upstream);
        state.grant = grant;
        true
    }

    /// Notes why the next request is let through. `false`: the connection was ended meanwhile.
    pub(crate) fn regrant(&self, grant: Grant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.grant = Some(grant);
        !state.ended
    }

    fn end(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.ended = true;
        abort(&self.client);
        if let Some(upstream) = &state.upstream {
            abort(upstream);
        }
        drop(state);
        self.stop.cancel();
    }
}

/// Resets a connection within the call.
pub(crate) fn abort(stream: &TcpStream) {
    // ENOTCONN and the like: it is over already.
    let _ = rustix::net::connect_unspec(stream);
}

/// All live connections of a sandbox.
#[derive(Debug, Default)]
pub(crate) struct Live {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    closed: bool,
    next: u64,
    connections: HashMap<u64, Arc<Connection>>,
}

/// Keeps a connection in the list.
#[derive(Debug)]
pub(crate) struct Entry {
    live: Arc<Live>,
    number: u64,
    pub(crate) connection: Arc<Connection>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.live.inner.lock().unwrap_or_else(PoisonError::into_inner).connections.remove(&self.number);
    }
}

impl Live {
    /// Adds a connection. `None` after [`Live::close`]: the connection was reset.
    pub(crate) fn add(self: &Arc<Self>, client: Arc<TcpStream>) -> Option<Entry> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.closed {
            abort(&client);
            return None;
        }
        let number = inner.next;
        inner.next += 1;
        let connection =
            Arc::new(Connection { client, stop: CancellationToken::new(), state: Mutex::default() });
        inner.connections.insert(number, connection.clone());
        Some(Entry { live: self.clone(), number, connection })
    }

    /// Ends all connections, and every later one as it comes. Returns how many were alive.
    pub(crate) fn close(&self) -> usize {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.closed = true;
        let connections = std::mem::take(&mut inner.connections);
        for connection in connections.values() {
            connection.end();
        }
        connections.len()
    }

    /// Ends the connections whose grant no longer stands. Returns them.
    pub(crate) fn end_unless(&self, mut stands: impl FnMut(&Grant) -> bool) -> Vec<Grant> {
        let connections: Vec<_> = {
            let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.connections.values().cloned().collect()
        };
        let mut ended = Vec::new();
        for connection in connections {
            let grant = connection.state.lock().unwrap_or_else(PoisonError::into_inner).grant.clone();
            if let Some(grant) = grant.filter(|grant| !stands(grant)) {
                connection.end();
                ended.push(grant);
            }
        }
        ended
    }

    /// Number of live connections.
    pub(crate) fn count(&self) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).connections.len()
    }
}
