//! gRPC over the loader's socket.

use std::io;
use std::sync::Arc;

use clawsec_proto::loader_server::{Loader, LoaderServer};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use crate::socket::Socket;

/// Largest request: an OCI configuration, a root file system's files and secrets.
const REQUEST_BYTES: usize = 64 << 20;

/// Serves `service` on `socket` until the returned future is dropped, or the server breaks.
pub async fn serve<S: Loader>(socket: Arc<Socket>, service: Arc<S>) -> Result<(), tonic::transport::Error> {
    let (accepted, connections) = mpsc::channel::<io::Result<UnixStream>>(16);
    let accepting = async move {
        while accepted.send(Ok(socket.accept().await)).await.is_ok() {}
        // The server is gone, and says why.
        std::future::pending::<()>().await;
    };
    let service = LoaderServer::from_arc(service).max_decoding_message_size(REQUEST_BYTES);
    let serving =
        Server::builder().add_service(service).serve_with_incoming(ReceiverStream::new(connections));
    tokio::select! {
        result = serving => result,
        () = accepting => Ok(()),
    }
}
