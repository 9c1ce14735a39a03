//! Services and VIPs that come, change and go, under connections that are open.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::fixture::{Rig, beside, is_echoed, patient, read_until_reset, until};
use crate::proxy::{Proxy, ProxyError};

#[test]
fn without_services_there_is_nothing() {
    let mut proxy = Proxy::default();
    proxy.serve(Vec::new()).unwrap();
    assert!(proxy.running.is_none());
    assert!(proxy.counts().is_empty() && proxy.troubles().is_empty());
}

#[test]
fn connections_to_a_vip_that_has_gone_are_reset_and_later_ones_served() {
    let rig = Rig::with(1).serving(|_| {});
    let listener = rig.listen(1);
    let (client, backend) = rig.connection(&listener);
    rig.cut(&["10.0.0.99".parse().unwrap()]);
    let (second, _second_backend) = rig.connection(&listener);
    rig.cut(&[rig.service.vip]);
    for stream in [&client, &backend, &second] {
        assert_eq!(read_until_reset(stream), b"");
    }
    until("they are counted", || rig.broken("cut") == 2);
    drop(listener);
    rig.echo(1);
    assert!(is_echoed(&mut rig.connect()));
}

#[test]
fn connections_of_a_service_that_has_gone_are_served_for_its_grace() {
    let mut rig = Rig::with(1).serving(|service| service.grace = Duration::from_millis(500));
    rig.echo(1);
    let mut client = rig.connect();
    assert!(is_echoed(&mut client));
    rig.proxy.serve(Vec::new()).unwrap();
    until("nobody listens any more", || TcpStream::connect(rig.vip()).is_err());
    assert!(is_echoed(&mut client), "it is within its grace");
    assert_eq!(read_until_reset(&client), b"");
}

#[test]
fn a_vip_that_goes_takes_the_connections_of_services_that_have_gone_with_it() {
    let mut rig = Rig::with(1).serving(|service| service.grace = Duration::from_secs(3600));
    rig.echo(1);
    let mut client = rig.connect();
    assert!(is_echoed(&mut client));
    rig.proxy.serve(Vec::new()).unwrap();
    until("it is gone", || rig.proxy.counts().is_empty());
    rig.cut(&[rig.service.vip]);
    assert_eq!(read_until_reset(&client), b"");
}

#[test]
fn no_client_is_refused_while_the_set_changes() {
    let mut rig = Rig::with(3).serving(|_| {});
    (1..=3).for_each(|number| rig.echo(number));
    let (vip, served, over) = (rig.vip(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let clients = {
        let (served, over) = (Arc::clone(&served), Arc::clone(&over));
        beside(move || {
            while !over.load(Ordering::Relaxed) {
                let mut client = patient(TcpStream::connect(vip).unwrap());
                assert!(is_echoed(&mut client));
                served.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let mut round = 0;
    until("enough were served", || {
        rig.service.backends.rotate_left(1);
        rig.service.backends[round % 3].weight ^= 1;
        rig.service.backends[(round + 1) % 3].weight = 1;
        rig.serve();
        round += 1;
        round > 30 && served.load(Ordering::Relaxed) > 100 || clients.is_finished()
    });
    over.store(true, Ordering::Relaxed);
    clients.join().unwrap();
    assert!(rig.counts().failed.is_empty() && rig.counts().broken.is_empty(), "{:?}", rig.counts());
}

#[test]
fn the_end_of_the_process_resets_both_sides_for_half_an_answer_is_none() {
    let mut rig = Rig::with(1).serving(|_| {});
    let listener = rig.listen(1);
    let (client, backend) = rig.connection(&listener);
    drop(std::mem::take(&mut rig.proxy));
    assert_eq!(read_until_reset(&client), b"");
    assert_eq!(read_until_reset(&backend), b"");
    assert!(TcpStream::connect(rig.vip()).is_err());
}

#[test]
fn a_successor_listens_before_its_predecessor_has_ended() {
    let mut rig = Rig::with(1).serving(|_| {});
    rig.echo(1);
    let mut successor = Proxy::default();
    successor.serve(vec![rig.service.clone()]).unwrap();
    until("it serves", || {
        assert!(is_echoed(&mut rig.connect()));
        successor.counts().first().is_some_and(|counts| counts.new_flows > 0)
    });
    assert!(successor.troubles().is_empty());
    drop(std::mem::replace(&mut rig.proxy, successor));
    assert!(is_echoed(&mut rig.connect()));
}

#[test]
fn an_address_that_is_taken_is_said_to_be_and_had_later() {
    let rig = Rig::with(1);
    let other = TcpListener::bind(rig.vip()).unwrap();
    rig.echo(1);
    let rig = rig.serving(|_| {});
    until("it is said", || rig.proxy.troubles().contains_key(&rig.vip()));
    assert!(rig.proxy.troubles()[&rig.vip()].contains("ss -ltnp"));
    drop(other);
    until("it is had", || rig.proxy.troubles().is_empty());
    assert!(is_echoed(&mut rig.connect()));
}

#[test]
fn what_cannot_be_served_is_refused_before_anything_changes() {
    let rig = Rig::with(1).serving(|_| {});
    rig.echo(1);
    let service = &rig.service;
    let same_address = crate::proxy::ProxyService { name: "other".into(), ..service.clone() };
    let twice = service.backends.iter().chain(&service.backends).copied().collect();
    let cases = [
        (vec![service.clone(), same_address], "is there twice"),
        (vec![service.clone(), service.clone()], "another of that name"),
        (vec![crate::proxy::ProxyService { backends: twice, ..service.clone() }], "is there twice"),
        (vec![crate::proxy::ProxyService { ports: Vec::new(), ..service.clone() }], "needs ports"),
    ];
    let mut proxy = Proxy::default();
    for (services, why) in cases {
        let error = proxy.serve(services).unwrap_err();
        assert!(matches!(error, ProxyError::Invalid(_)) && error.to_string().contains(why), "{error}");
    }
    assert!(proxy.running.is_none());
    assert!(is_echoed(&mut rig.connect()));
}
