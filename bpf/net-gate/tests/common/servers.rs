//! Small servers in the namespace that stands for the network.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::net::ip;

/// A public address, and one in a private range.
pub const PUBLIC: &str = "9.9.9.9";
pub const OTHER: &str = "8.7.6.5";
pub const PRIVATE: &str = "10.7.0.2";

/// Names the tests' tables give to them.
pub const NAMES: [(&str, &str); 8] = [
    ("good.example", PUBLIC),
    ("bad.example", PUBLIC),
    ("held.example", PUBLIC),
    ("a.wild.example", PUBLIC),
    ("wild.example", PUBLIC),
    ("evilwild.example", PUBLIC),
    ("other.example", OTHER),
    ("private.example", PRIVATE),
];

/// Answers HTTP requests; the body says which address was reached.
pub const HTTP: [u16; 2] = [80, 8080];
/// Answers "SERVER HELLO" to the first bytes.
pub const TLS: u16 = 443;
/// Greets first, then echoes.
pub const GREETER: u16 = 2525;
/// Sends without end.
pub const FLOOD: u16 = 9000;
/// Counts what it gets until the end, then says how much it was.
pub const SINK: u16 = 9001;
/// Answers each HTTP request of a connection with the request itself, as it came.
pub const ECHO: u16 = 8088;
/// Nobody listens here.
pub const CLOSED: u16 = 9999;

/// Starts all servers in the calling thread's namespace. They end with the process; the test's namespace with them.
pub fn start() -> Servers {
    for address in [PUBLIC, OTHER, PRIVATE] {
        ip(&format!("addr add {address}/32 dev lo"));
    }
    let mut stop = Vec::new();
    for address in [PUBLIC, OTHER, PRIVATE] {
        let address: IpAddr = address.parse().unwrap();
        for port in HTTP {
            stop.push(serve(SocketAddr::new(address, port), http));
        }
        stop.push(serve(SocketAddr::new(address, TLS), tls));
        stop.push(serve(SocketAddr::new(address, GREETER), greet));
        stop.push(serve(SocketAddr::new(address, ECHO), echo));
        stop.push(serve(SocketAddr::new(address, FLOOD), flood));
        stop.push(serve(SocketAddr::new(address, SINK), sink));
    }
    Servers(stop)
}

/// The listeners' descriptors; shutting them ends their threads.
pub struct Servers(Vec<TcpListener>);

impl Drop for Servers {
    fn drop(&mut self) {
        for listener in &self.0 {
            let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Read);
        }
    }
}

fn serve(address: SocketAddr, work: fn(TcpStream)) -> TcpListener {
    let listener = TcpListener::bind(address).unwrap();
    let copy = listener.try_clone().unwrap();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
                stream.set_write_timeout(Some(Duration::from_secs(40))).unwrap();
                work(stream);
            });
        }
    });
    copy
}

fn http(mut stream: TcpStream) {
    let mut request: Vec<u8> = Vec::new();
    let mut part = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut part) {
            Ok(count @ 1..) => request.extend(&part[..count]),
            _ => return,
        }
    }
    let body = format!("reached {}", stream.local_addr().unwrap());
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all((head + &body).as_bytes());
}

/// Paths that ask for something else: `/close` ends the connection, `/chunks` has chunks and a trailer, `/switch`
/// changes the protocol.
fn echo(mut stream: TcpStream) {
    let mut bytes: Vec<u8> = Vec::new();
    let mut part = [0; 4096];
    loop {
        let head = loop {
            if let Some(at) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
                break String::from_utf8_lossy(&bytes[..at + 4]).into_owned();
            }
            match stream.read(&mut part) {
                Ok(count @ 1..) => bytes.extend(&part[..count]),
                _ => return,
            }
        };
        let lower = head.to_ascii_lowercase();
        let length =
            lower.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next()?.parse().ok());
        let chunked = lower.contains("transfer-encoding: chunked");
        let whole = |bytes: &[u8]| match chunked {
            true => {
                bytes.windows(5).position(|end| end == b"\n0\r\n\r" || end == b"end\r\n").map(|at| at + 7)
            }
            false => Some(head.len() + length.unwrap_or(0)).filter(|length| bytes.len() >= *length),
        };
        let end = loop {
            if let Some(end) = whole(&bytes) {
                break end.min(bytes.len());
            }
            match stream.read(&mut part) {
                Ok(count @ 1..) => bytes.extend(&part[..count]),
                _ => return,
            }
        };
        let request: Vec<u8> = bytes.drain(..end).collect();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let answer = match path {
            "/switch" => {
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n".to_vec()
            }
            "/chunks" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n"
                .to_vec(),
            _ => {
                let close = if path == "/close" { "Connection: close\r\n" } else { "" };
                let head = format!("HTTP/1.1 200 OK\r\n{close}Content-Length: {}\r\n\r\n", request.len());
                [head.into_bytes(), request].concat()
            }
        };
        if stream.write_all(&answer).is_err() || path == "/close" {
            return;
        }
    }
}

fn tls(mut stream: TcpStream) {
    let mut hello = [0; 4096];
    if matches!(stream.read(&mut hello), Ok(1..)) {
        let _ = stream.write_all(b"SERVER HELLO");
        let _ = stream.shutdown(std::net::Shutdown::Write);
        while matches!(stream.read(&mut hello), Ok(1..)) {}
    }
}

fn greet(mut stream: TcpStream) {
    let _ = stream.write_all(b"220 welcome\r\n");
    let mut part = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut part) {
        let _ = stream.write_all(&part[..count]);
    }
}

fn flood(mut stream: TcpStream) {
    let block = vec![b'x'; 1 << 16];
    while stream.write_all(&block).is_ok() {}
}

fn sink(mut stream: TcpStream) {
    let mut part = vec![0; 1 << 16];
    let mut total = 0;
    while let Ok(count @ 1..) = stream.read(&mut part) {
        total += count;
    }
    let _ = stream.write_all(total.to_string().as_bytes());
}

/// A name server that gives every name this address, at an address of the calling thread's namespace.
pub fn name_server(at: &str, answer: std::net::Ipv4Addr) {
    let socket = UdpSocket::bind((at, 53)).unwrap();
    std::thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut packet) {
            let question = &packet[12..length];
            let end = question.iter().position(|byte| *byte == 0).unwrap() + 5;
            let is_a = question[end - 3] == 1;
            let mut reply = packet[..2].to_vec();
            reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            reply.extend(&question[..end]);
            if is_a {
                reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                reply.extend(answer.octets());
            }
            let _ = socket.send_to(&reply, peer);
        }
    });
}
