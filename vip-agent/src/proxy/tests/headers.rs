//! What a backend reads first.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU16;

use super::fixture::{Rig, patient, read_all, say_all};
use crate::proxy::{HeaderVersion, PortMap};

/// Reads the line that names the client.
fn header(rig: &Rig, client: &TcpStream, backend: &mut TcpStream) {
    let expected = format!(
        "PROXY TCP4 {} {} {} {}\r\n",
        client.local_addr().unwrap().ip(),
        rig.vip().ip(),
        client.local_addr().unwrap().port(),
        rig.vip().port()
    );
    let mut line = vec![0; expected.len()];
    backend.read_exact(&mut line).unwrap();
    assert_eq!(String::from_utf8_lossy(&line), expected);
}

#[test]
fn a_client_that_says_nothing_is_named_all_the_same() {
    let rig = Rig::with(1).serving(|service| service.header = Some(HeaderVersion::V1));
    let listener = rig.listen(1);
    let (client, mut backend) = rig.connection(&listener);
    header(&rig, &client, &mut backend);
}

#[test]
fn what_the_client_says_follows_the_header() {
    let rig = Rig::with(1).serving(|service| service.header = Some(HeaderVersion::V1));
    let listener = rig.listen(1);
    let (client, mut backend) = rig.connection(&listener);
    say_all(&client, b"GET / HTTP/1.0\r\n\r\n");
    header(&rig, &client, &mut backend);
    assert_eq!(read_all(&backend), b"GET / HTTP/1.0\r\n\r\n");
}

#[test]
fn version_2_names_the_client_in_binary() {
    let rig = Rig::with(1).serving(|service| service.header = Some(HeaderVersion::V2));
    let listener = rig.listen(1);
    let (client, mut backend) = rig.connection(&listener);
    let mut bytes = [0; 28];
    backend.read_exact(&mut bytes).unwrap();
    let parsed = ppp::v2::Header::try_from(&bytes[..]).unwrap();
    assert_eq!(parsed.addresses, ppp::v2::Addresses::from((client.local_addr().unwrap(), rig.vip())));
    assert_eq!((parsed.command, parsed.protocol), (ppp::v2::Command::Proxy, ppp::v2::Protocol::Stream));
}

#[test]
fn without_a_header_the_client_is_all_that_is_heard() {
    let rig = Rig::with(1).serving(|_| {});
    let listener = rig.listen(1);
    let (client, backend) = rig.connection(&listener);
    say_all(&client, b"hello");
    assert_eq!(read_all(&backend), b"hello");
}

#[test]
fn an_ipv6_client_is_named_by_its_family_to_an_ipv4_backend() {
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let rig = Rig::with(1).serving(|service| {
        let target = service.ports[0].target;
        service.vip = "::1".parse().unwrap();
        service.ports = vec![PortMap { port: NonZeroU16::new(port).unwrap(), target }];
        service.header = Some(HeaderVersion::V1);
    });
    let listener = rig.listen(1);
    let client = patient(TcpStream::connect(rig.vip()).unwrap());
    let mut backend = patient(listener.accept().unwrap().0);
    (&client).write_all(b"x").unwrap();
    let expected = format!("PROXY TCP6 ::1 ::1 {} {port}\r\nx", client.local_addr().unwrap().port());
    let mut heard = vec![0; expected.len()];
    backend.read_exact(&mut heard).unwrap();
    assert_eq!(String::from_utf8_lossy(&heard), expected);
}
