//! What strangers can make of it: not much.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::agents::{Ask as _, agent, lab, pair};
use crate::client::{API, alone, connect, exchange, get};

#[test]
fn headers_are_bounded_in_size_number_and_time() -> Result<()> {
    let (_lab, agent) = alone()?;
    let node = agent.node();
    let mut slow = connect(node, API)?;
    slow.write_all(b"GET /status HTTP/1.1\r\nHost: ")?;

    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: x\r\n".repeat(100));
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(64 << 10));
    for (request, refusals) in [(large, [431, 431]), (many, [431, 400]), (long, [414, 431])] {
        let answer = exchange(node, &request)?;
        ensure!(refusals.contains(&answer.status), "{answer:?}");
    }
    // Ended by the server, with or without a word.
    let mut rest = Vec::new();
    let ended = slow.read_to_end(&mut rest);
    ensure!(ended.is_ok(), "a slow header is waited for: {ended:?}");
    ensure!(!String::from_utf8_lossy(&rest).contains(" 200 "));
    ensure!(get(node, "/healthz")?.status == 200);
    Ok(())
}

#[test]
fn whoever_holds_connections_open_keeps_nobody_out() -> Result<()> {
    let (_lab, agent) = alone()?;
    let node = agent.node();
    let held: Vec<TcpStream> = (0..200).map(|_| connect(node, API)).collect::<Result<_>>()?;
    for path in ["/healthz", "/status", "/metrics"] {
        ensure!(get(node, path)?.status == 200, "{path}");
    }
    drop(held);
    Ok(())
}

/// Asks for events and reads nothing.
fn slow_reader(node: &vip_lab::Node) -> Result<TcpStream> {
    let mut stream = connect(node, API)?;
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")?;
    Ok(stream)
}

#[test]
fn two_hundred_slow_readers_take_their_places_and_do_not_delay_the_driver() -> Result<()> {
    let lab = lab().build()?;
    let [owner, watcher] = pair(agent(&lab, 1), agent(&lab, 2))?;
    let before = [owner.edge()?.transitions, watcher.edge()?.transitions];
    let readers: Vec<TcpStream> = (0..200).map(|_| slow_reader(owner.node())).collect::<Result<_>>()?;
    for _ in 0..20 {
        owner.reload(&owner.builder())?;
        ensure!(get(owner.node(), "/healthz")?.status == 200);
    }
    let mut streams = 0;
    for mut reader in readers {
        reader.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut first = [0; 12];
        match reader.read_exact(&mut first).map(|()| &first) {
            Ok(b"HTTP/1.1 200") => streams += 1,
            // There was no place, or it made room for another.
            Ok(b"HTTP/1.1 503") => {}
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {}
            other => anyhow::bail!("{other:?}"),
        }
    }
    ensure!(streams == 32, "{streams} readers have a stream");
    let after = [owner.edge()?.transitions, watcher.edge()?.transitions];
    ensure!(after == before, "somebody took over: {before:?} -> {after:?}\n{}", owner.log());
    Ok(())
}
