//! The sandbox's name server. It knows two answers: the address that stands for a name, and no.
//!
//! Nothing leaves the host on a look-up: a name is resolved when a connection to it was allowed. Listens on UDP and
//! TCP 127.0.0.53:53 inside the sandbox's namespace.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use clawsec_proto as pb;
use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::bpf::{Origin, Transport};
use crate::name;
use crate::report;
use crate::shared::Shared;

/// Where the sandbox's resolv.conf points.
pub(crate) const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 53), 53);
/// Seconds that an answer may be kept. Short, so that a new policy shows soon; the address itself stays valid.
const TTL: u32 = 30;
/// Largest datagram that is read: queries are small, and EDNS does not make them larger.
const LARGEST_QUERY: usize = 4096;
/// Largest answer over UDP that is announced (RFC 9715).
const LARGEST_UDP: u16 = 1232;
/// Connections to the name server at once, and how long each may do nothing.
const MOST_TCP: usize = 64;
const TCP_IDLE: Duration = Duration::from_secs(5);

/// Answers datagrams until the task is ended.
pub(crate) async fn serve_udp(shared: Arc<Shared>, socket: UdpSocket) {
    let mut buffer = vec![0; LARGEST_QUERY];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            // An ICMP error of an earlier answer; nothing is wrong with the socket.
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        let SocketAddr::V4(source) = peer else { continue };
        let origin = shared.flows.take(Transport::Udp, source, SERVER);
        if let Some(answer) = answer(&shared, origin.as_ref(), &buffer[..length]) {
            // A client that does not read its answers loses them, as with any name server.
            let _ = socket.try_send_to(&answer, peer);
        }
    }
}

/// Answers over TCP until the task is ended.
pub(crate) async fn serve_tcp(shared: Arc<Shared>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(MOST_TCP));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(permit) = room.clone().try_acquire_owned() else { continue };
        let shared = shared.clone();
        tokio::spawn(async move {
            // An error ends the client's connection, which is all there is to do.
            let _ = serve_stream(&shared, stream).await;
            drop(permit);
        });
    }
}

async fn serve_stream(shared: &Arc<Shared>, stream: TcpStream) -> io::Result<()> {
    let (SocketAddr::V4(source), SocketAddr::V4(destination)) = (stream.peer_addr()?, stream.local_addr()?)
    else {
        return Ok(());
    };
    let origin = shared.flows.take(Transport::Tcp, source, destination);
    let stream = Arc::new(stream);
    let Some(entry) = shared.live.add(stream.clone()) else { return Ok(()) };
    drop(stream);
    let mut reader = StreamIo(&entry.connection.client);
    loop {
        let mut length = [0; 2];
        timeout(TCP_IDLE, reader.read_exact(&mut length)).await??;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        timeout(TCP_IDLE, reader.read_exact(&mut query)).await??;
        let Some(answer) = answer(shared, origin.as_ref(), &query) else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        timeout(TCP_IDLE, reader.write_all(&[&length.to_be_bytes()[..], &answer].concat())).await??;
    }
}

/// Reads and writes a stream that is shared with the list of live connections.
struct StreamIo<'a>(&'a TcpStream);

impl StreamIo<'_> {
    async fn read_exact(&mut self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            self.0.readable().await?;
            match self.0.try_read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => buffer = &mut buffer[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.0.writable().await?;
            match self.0.try_write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The answer to a packet; `None` for what is no query at all.
fn answer(shared: &Shared, origin: Option<&Origin>, packet: &[u8]) -> Option<Vec<u8>> {
    let query = match Message::from_vec(packet) {
        Ok(query) if query.metadata.message_type == MessageType::Query => query,
        // Answering an answer could make two servers talk for ever.
        Ok(_) => return None,
        Err(_) => return malformed(packet),
    };
    let mut response = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
    response.metadata = Metadata::response_from_request(&query.metadata);
    response.metadata.recursion_available = true;
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(LARGEST_UDP);
        response.set_edns(edns);
    }
    response.metadata.response_code = match &query.queries[..] {
        _ if query.metadata.op_code != OpCode::Query => ResponseCode::NotImp,
        [question] => {
            response.add_query(question.clone());
            resolve(shared, origin, question, &mut response)
        }
        _ => ResponseCode::FormErr,
    };
    response.to_vec().ok()
}

/// FORMERR for what has at least the head of a query.
fn malformed(packet: &[u8]) -> Option<Vec<u8>> {
    let head = packet.get(..12)?;
    let is_query = head[2] & 0x80 == 0;
    let id = u16::from_be_bytes([head[0], head[1]]);
    is_query.then(|| Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok()).flatten()
}

fn resolve(
    shared: &Shared,
    origin: Option<&Origin>,
    question: &Query,
    response: &mut Message,
) -> ResponseCode {
    if question.query_class() != DNSClass::IN {
        return ResponseCode::Refused;
    }
    let Some(host) = name::normalise(&question.name().to_ascii()) else { return ResponseCode::Refused };
    let Some((origin, subject)) = origin.and_then(|origin| Some((origin, shared.subject_of(origin)?))) else {
        return ResponseCode::Refused;
    };
    if let Err(rule) = shared.table.load().may_resolve(&subject, &host) {
        refused(shared, origin, &subject, &host, &rule, "no rule allows connections to this name");
        return ResponseCode::Refused;
    }
    // Other types exist in that the name does; only IPv4 leads to the gate.
    if question.query_type() != RecordType::A {
        return ResponseCode::NoError;
    }
    match shared.pool.assign(&host) {
        Ok(address) => {
            response.add_answer(Record::from_rdata(question.name().clone(), TTL, RData::A(A(address))));
            ResponseCode::NoError
        }
        Err(crate::pool::Exhausted) => {
            let why = "the sandbox has looked up as many names as it may";
            refused(shared, origin, &subject, &host, "gate/name-limit", why);
            ResponseCode::ServFail
        }
    }
}

/// Emits the event of a look-up that was refused.
fn refused(shared: &Shared, origin: &Origin, subject: &Arc<str>, host: &str, rule: &str, why: &str) {
    let Some(held_back) = shared.throttle.pass((subject.clone(), host.into())) else { return };
    shared.reporter.decision(
        subject,
        Some(report::process(origin)),
        pb::DecisionEvent {
            action: Some(pb::decision_event::Action::Network(pb::NetworkAction {
                protocol: pb::NetworkProtocol::Dns.into(),
                host: host.to_owned(),
                port: SERVER.port().into(),
                rule: rule.to_owned(),
                ..Default::default()
            })),
            verdict: pb::Verdict::Deny.into(),
            rule: rule.to_owned(),
            layer: "gate".into(),
            message: report::with_held_back(why, held_back),
            ..Default::default()
        },
    );
}
