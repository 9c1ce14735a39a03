//! `tcp`: whether a connection is accepted. It is closed at once.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::Limit;

pub(super) async fn connect(address: SocketAddr, limit: Limit) -> Result<TcpStream, String> {
    let connected = limit.on(&format!("connecting to {address}"), TcpStream::connect(address)).await?;
    connected.map_err(|error| format!("cannot connect to {address}: {error}"))
}
