//! How connections end: each way of ending arrives at the other side as what it was.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::fixture::{Rig, beside, is_echoed, patient, read_all, read_until_reset, reset, say_all, until};
use crate::proxy::relay::CHUNK;

fn pair() -> (Rig, TcpStream, TcpStream) {
    let rig = Rig::with(1).serving(|_| {});
    let listener = rig.listen(1);
    let (client, backend) = rig.connection(&listener);
    (rig, client, backend)
}

#[test]
fn a_client_that_has_said_all_still_gets_its_answer() {
    let (rig, client, backend) = pair();
    say_all(&client, b"question");
    assert_eq!(read_all(&backend), b"question");
    say_all(&backend, b"answer");
    assert_eq!(read_all(&client), b"answer");
    until("it is over", || rig.counts().active_flows == 0);
    let counts = rig.counts();
    assert_eq!((counts.received, counts.sent, counts.new_flows), (8, 6, 1));
    assert!(counts.failed.is_empty() && counts.broken.is_empty(), "{counts:?}");
}

#[test]
fn a_backend_that_has_said_all_still_hears_the_client() {
    let (rig, client, backend) = pair();
    say_all(&backend, b"greeting");
    assert_eq!(read_all(&client), b"greeting");
    say_all(&client, b"at last");
    assert_eq!(read_all(&backend), b"at last");
    until("it is over", || rig.counts_of(1).active_flows == 0);
    assert_eq!((rig.counts_of(1).received, rig.counts_of(1).sent), (7, 8));
}

#[test]
fn a_backends_reset_is_the_clients_and_what_it_said_before_arrives() {
    let (rig, client, mut backend) = pair();
    backend.write_all(b"half an ans").unwrap();
    until("it is passed on", || rig.counts().sent == 11);
    reset(backend);
    assert_eq!(read_until_reset(&client), b"half an ans");
    until("it is counted", || rig.broken("backend_reset") == 1);
}

#[test]
fn a_clients_reset_is_the_backends() {
    let (rig, client, backend) = pair();
    reset(client);
    assert_eq!(read_until_reset(&backend), b"");
    until("it is counted", || rig.broken("client_reset") == 1);
}

#[test]
fn a_reset_is_noticed_though_that_side_had_said_all_and_nobody_writes() {
    let (rig, client, backend) = pair();
    backend.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), b"");
    reset(backend);
    until("it is counted", || rig.broken("backend_reset") == 1);
    until("the client is told", || (&client).write_all(b"?").is_err());
}

#[test]
fn a_backend_that_closes_on_what_it_has_not_read_does_not_swallow_its_answer() {
    let (rig, client, mut backend) = pair();
    (&client).write_all(&[b'x'; 100_000]).unwrap();
    let mut some = [0; 10];
    backend.read_exact(&mut some).unwrap();
    backend.write_all(b"413 too large").unwrap();
    until("it is passed on", || rig.counts().sent == 13);
    // The kernel resets what is closed with bytes unread.
    drop(backend);
    assert_eq!(read_until_reset(&client), b"413 too large");
}

#[test]
fn a_slow_reader_slows_the_sender_down_and_loses_nothing() {
    const BLOCKS: usize = 400;
    let (rig, client, backend) = pair();
    let block: Vec<u8> = (0..251 * 1024).map(|index| (index % 251) as u8).collect();
    let said = block.clone();
    let sender = beside(move || {
        backend.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
        (0..BLOCKS).for_each(|_| (&backend).write_all(&said).unwrap());
        backend
    });
    let mut before = u64::MAX;
    until("the sender is stuck", || {
        thread::sleep(Duration::from_millis(150));
        let sent = rig.counts().sent;
        sent > 0 && std::mem::replace(&mut before, sent) == sent
    });
    // What both kernels' buffers hold (net.ipv4.tcp_wmem, tcp_rmem), and a chunk.
    assert!(before < (48 << 20) + CHUNK as u64, "{before} bytes were taken for a client that read none");
    let mut heard = vec![0; block.len()];
    for _ in 0..BLOCKS {
        (&client).read_exact(&mut heard).unwrap();
        assert!(heard == block);
    }
    drop(sender.join().unwrap());
    assert_eq!(read_all(&client), b"");
}

#[test]
fn a_connection_on_which_nothing_passes_ends() {
    let rig = Rig::with(1).serving(|service| service.limits.idle = Duration::from_millis(300));
    rig.echo(1);
    let mut client = rig.connect();
    for _ in 0..4 {
        thread::sleep(Duration::from_millis(100));
        assert!(is_echoed(&mut client), "what passes now and then stays");
    }
    assert_eq!(read_until_reset(&client), b"");
    until("it is counted", || rig.broken("idle") == 1);
}

#[test]
fn half_a_connection_has_less_time() {
    let rig = Rig::with(1).serving(|service| service.limits.half_closed = Duration::from_millis(100));
    let listener = rig.listen(1);
    let (client, backend) = rig.connection(&listener);
    say_all(&client, b"question");
    assert_eq!(read_all(&backend), b"question");
    assert_eq!(read_until_reset(&client), b"");
    until("it is counted", || rig.broken("idle") == 1);
}

#[test]
fn many_connections_at_once_are_each_their_own() {
    let rig = Rig::with(3).serving(|_| {});
    (1..=3).for_each(|number| rig.echo(number));
    let mut clients: Vec<TcpStream> = (0..300).map(|_| rig.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.write_all(&number.to_be_bytes()).unwrap();
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let mut heard = [0; size_of::<usize>()];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(usize::from_be_bytes(heard), number);
    }
    assert_eq!(rig.counts().active_flows, 300);
    assert!((1..=3).all(|number| rig.counts_of(number).active_flows > 60), "{:?}", rig.counts());
    drop(clients);
    until("all are over", || rig.counts().active_flows == 0);
}

#[test]
fn of_more_clients_than_may_be_the_others_wait() {
    let rig = Rig::with(1).serving(|service| service.limits.connections = 2);
    rig.echo(1);
    let (mut first, mut second) = (rig.connect(), rig.connect());
    assert!(is_echoed(&mut first) && is_echoed(&mut second));
    let third = rig.connect();
    (&third).write_all(b"echo").unwrap();
    third.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut heard = [0; 4];
    assert!((&third).read(&mut heard).is_err(), "there were two places");
    drop(first);
    patient(third.try_clone().unwrap()).read_exact(&mut heard).unwrap();
    assert_eq!(heard, *b"echo");
}
