//! turmoil's sockets under tonic, on both sides.

use futures_util::stream::{self, Stream};
use hyper_util::rt::TokioIo;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint};
use turmoil::net::{TcpListener, TcpStream};

/// Where servers listen.
pub const PORT: u16 = 7420;

/// A simulated connection.
#[derive(Debug)]
pub struct Connection(pub TcpStream);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Connections of a server on this host.
pub async fn incoming() -> impl Stream<Item = io::Result<Connection>> + Send + 'static {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await.unwrap();
    stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| Connection(stream));
        Some((accepted, listener))
    })
}

/// A connection to a host.
pub async fn dial(host: &str) -> io::Result<Connection> {
    TcpStream::connect((host, PORT)).await.map(Connection)
}

/// A channel to a host's server.
pub async fn channel(host: &'static str) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_static("http://simulated")
        .connect_timeout(std::time::Duration::from_secs(10))
        .connect_with_connector(tower::service_fn(move |_| async move {
            dial(host).await.map(TokioIo::new)
        }))
        .await
}
