//! Ports of a sandbox that the host can reach.
//!
//! The host's side is an ordinary listener. For each connection to it, one is made to 127.0.0.1 inside the sandbox's
//! namespace, from a socket that was created there. It belongs to no subject's cgroup, so it passes their programs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::live;
use crate::netns::SocketMaker;
use crate::shared::Shared;
use crate::splice;

/// Connections to one published port at once.
const MOST_CONNECTIONS: usize = 1024;
/// Longest time for the connection inside; it does not leave the host.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Listens on the host. An empty address is 127.0.0.1.
pub(crate) fn listen(host_ip: &str, host_port: u16) -> std::io::Result<std::net::TcpListener> {
    let address = match host_ip {
        "" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        text => text.parse().map_err(|_| std::io::Error::other(format!("{text:?} is no address")))?,
    };
    let listener = std::net::TcpListener::bind(SocketAddr::new(address, host_port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Accepts until the task is ended.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener, inside: Arc<SocketMaker>, port: u16) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // Out of descriptors, or a connection that was gone already: neither is helped by haste.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            live::abort(&client);
            continue;
        };
        let (shared, inside) = (shared.clone(), inside.clone());
        tokio::spawn(async move {
            carry(&shared, Arc::new(client), &inside, port).await;
            drop(permit);
        });
    }
}

async fn carry(shared: &Shared, client: Arc<TcpStream>, inside: &SocketMaker, port: u16) {
    let Some(entry) = shared.live.add(client.clone()) else { return };
    let work = async {
        let Ok(Ok(upstream)) = timeout(CONNECT_TIME, connect(inside, port)).await else {
            live::abort(&client);
            return;
        };
        let upstream = Arc::new(upstream);
        if !entry.connection.establish(upstream.clone(), None) {
            return;
        }
        splice::keep_alive(&client);
        splice::keep_alive(&upstream);
        if splice::both_ways(&client, &upstream, &shared.large_pipes).await.is_err() {
            splice::end_both(&client, &upstream).await;
        }
    };
    tokio::select! {
        () = entry.connection.stop.cancelled() => {}
        () = work => {}
    }
}

async fn connect(inside: &SocketMaker, port: u16) -> std::io::Result<TcpStream> {
    let socket: OwnedFd = inside.tcp().await?;
    let socket = TcpSocket::from_std_stream(socket.into());
    socket.connect(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into()).await
}
