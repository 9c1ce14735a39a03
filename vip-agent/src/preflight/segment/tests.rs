//! A segment with forged routers on it.

use super::*;
use crate::types::{Centiseconds, ChecksumMode, Seconds};
use crate::vrrp::codec::{DecodeOptions, Dialect, Fields};
use crate::vrrp::prepared::PreparedAdverts;

const STATION: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const OWN_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const V3: Dialect = Dialect::V3 { interval: Centiseconds::SECOND, checksum: ChecksumMode::Pseudo };
const V2: Dialect = Dialect::V2 { interval: Seconds::ONE, password: None };

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn rules(senders: Senders) -> Rules {
    let decode = DecodeOptions { dialect: V3, strict: false };
    Rules { own: ip("10.0.0.1"), own_mac: OWN_MAC, senders, decode, auth: None, vips: vec![ip("10.0.0.50")] }
}

/// The advert of a router at 10.0.0.9.
struct Router {
    vrid: u8,
    dialect: Dialect,
    vips: Vec<IpAddr>,
    source: &'static str,
    mac: MacAddr,
}

/// One of our own group.
fn peer() -> Router {
    Router { vrid: 51, dialect: V3, vips: vec![ip("10.0.0.50")], source: "10.0.0.9", mac: STATION }
}

impl Router {
    fn frame(&self) -> Vec<u8> {
        let virtual_router_id = VirtualRouterId::new(self.vrid).unwrap();
        let fields = Fields { virtual_router_id, priority: 90, dialect: self.dialect, addresses: &self.vips };
        let adverts = PreparedAdverts::build_frame(&fields, ip(self.source), self.mac).unwrap();
        adverts.iter().next().unwrap().1.to_vec()
    }
}

/// What is said of a segment where these are heard and these answer, without the lines about multicast.
fn said(rules: &Rules, frames: &[Vec<u8>], claims: &[Claim]) -> Vec<Finding> {
    let segment = Segment {
        subject: "instance edge".to_owned(),
        interface: "eth0".to_owned(),
        virtual_router_id: VirtualRouterId::new(51).unwrap(),
        rules: vec![rules],
        frames: frames.iter().map(Vec::as_slice).collect(),
        listened: Duration::from_secs(3),
        long_enough: true,
        vips: vec![ip("10.0.0.50")],
        claims: claims.to_vec(),
    };
    judge(&segment)
}

/// The one finding of a check, when only this router is heard.
fn verdict(rules: &Rules, router: &Router) -> Finding {
    let findings = said(rules, &[router.frame()], &[]);
    let mut vrid: Vec<Finding> =
        findings.into_iter().filter(|finding| finding.check == Check::Vrid).collect();
    assert_eq!(vrid.len(), 1, "{vrid:#?}");
    vrid.remove(0)
}

fn claim() -> Claim {
    Claim { address: ip("10.0.0.50"), mac: STATION }
}

#[test]
fn a_silent_segment_is_fine_and_proves_nothing_about_multicast() {
    let findings = said(&rules(Senders::Multicast), &[], &[]);
    assert!(findings.iter().all(|finding| finding.verdict.word() == "ok"), "{findings:#?}");
    let checks: Vec<Check> = findings.iter().map(|finding| finding.check).collect();
    assert_eq!(checks, [Check::Multicast, Check::Vrid, Check::Vip]);
    assert!(findings[0].found.contains("only a second node can tell"));
}

#[test]
fn a_router_of_our_own_group_is_fine_and_proves_that_multicast_arrives() {
    let findings = said(&rules(Senders::Multicast), &[peer().frame()], &[claim()]);
    assert!(findings.iter().all(|finding| finding.verdict.word() == "ok"), "{findings:#?}");
    assert!(findings[1].found.contains("10.0.0.9 (02:00:00:00:00:09) is the Active router"));
    assert!(findings[0].found.contains("adverts of 10.0.0.9 arrive"));
    assert!(findings[2].found.contains("10.0.0.9 advertises it"));
}

#[test]
fn another_group_with_our_virtual_router_id_is_an_error_that_names_those_that_are_taken() {
    let rules = rules(Senders::Multicast);
    let other = Router { vips: vec![ip("10.0.0.77")], ..peer() };
    let third = Router { vrid: 60, source: "10.0.0.10", vips: vec![ip("10.0.0.78")], ..peer() };
    let findings = said(&rules, &[other.frame(), third.frame()], &[]);
    assert_eq!(findings[1].verdict.word(), "error");
    assert!(findings[1].found.contains("none of our VIPs"), "{findings:#?}");
    assert!(findings[1].verdict.remedy().unwrap().ends_with("not 51, 60"), "{findings:#?}");
}

#[test]
fn a_list_that_differs_is_a_warning() {
    let more = Router { vips: vec![ip("10.0.0.50"), ip("10.0.0.51")], ..peer() };
    let finding = verdict(&rules(Senders::Multicast), &more);
    assert!(finding.verdict.word() == "warning" && finding.found.contains("another list"), "{finding:#?}");
}

#[test]
fn a_router_that_would_not_be_heard_is_an_error_with_the_key_to_look_at() {
    let finding = verdict(&rules(Senders::Multicast), &Router { dialect: V2, ..peer() });
    assert!(finding.verdict.word() == "error" && finding.found.contains("version_mismatch"), "{finding:#?}");
    assert!(finding.verdict.remedy().unwrap().contains("`version`"));
    let unicast = Senders::Unicast { peers: vec![ip("10.0.0.2")], min_ttl: None };
    let finding = verdict(&rules(unicast), &peer());
    assert!(finding.found.contains("wrong_destination"), "{finding:#?}");
}

#[test]
fn our_vips_as_another_virtual_router_would_have_two_owners() {
    let finding = verdict(&rules(Senders::Multicast), &Router { vrid: 60, ..peer() });
    assert!(
        finding.verdict.word() == "error" && finding.found.contains("virtual router 60, not 51"),
        "{finding:#?}"
    );
}

#[test]
fn our_own_address_or_mac_on_another_station_is_an_error() {
    let twin = verdict(&rules(Senders::Multicast), &Router { source: "10.0.0.1", ..peer() });
    assert!(twin.verdict.word() == "error" && twin.found.contains("two hosts have it"), "{twin:#?}");
    let clone = verdict(&rules(Senders::Multicast), &Router { mac: OWN_MAC, ..peer() });
    assert!(clone.verdict.word() == "error" && clone.found.contains("cloned machine"), "{clone:#?}");
}

#[test]
fn who_answers_without_an_owner_that_advertises_has_what_is_ours() {
    let rules = rules(Senders::Multicast);
    let stranger = Router { vips: vec![ip("10.0.0.77")], ..peer() };
    for frames in [vec![], vec![Router { vrid: 60, ..peer() }.frame()], vec![stranger.frame()]] {
        let vip = said(&rules, &frames, &[claim()]).pop().unwrap();
        assert!(vip.check == Check::Vip && vip.verdict.word() == "error", "{vip:#?}");
        assert!(vip.found.contains("02:00:00:00:00:09 answers for 10.0.0.50"), "{vip:#?}");
    }
}

#[test]
fn a_crowd_of_claimants_is_summed_up() {
    let claims: Vec<Claim> =
        (0..20).map(|n| Claim { address: ip("10.0.0.50"), mac: MacAddr([2, 0, 0, 0, 1, n]) }).collect();
    let findings = said(&rules(Senders::Multicast), &[], &claims);
    let vips: Vec<&Finding> = findings.iter().filter(|finding| finding.check == Check::Vip).collect();
    assert_eq!(vips.len(), MOST_LINES);
    assert!(vips[MOST_LINES - 1].found.ends_with("(and 12 more)"));
}

#[test]
fn garbage_is_no_router() {
    for length in 0..60 {
        let frame = peer().frame();
        let cut = frame[..length.min(frame.len() - 1)].to_vec();
        let findings = said(&rules(Senders::Multicast), &[cut], &[]);
        assert!(findings.iter().all(|finding| finding.verdict.word() == "ok"), "{findings:#?}");
    }
}

#[test]
fn listening_too_short_is_said() {
    let rules = rules(Senders::Multicast);
    let segment = Segment {
        subject: "instance edge".to_owned(),
        interface: "eth0".to_owned(),
        virtual_router_id: VirtualRouterId::new(51).unwrap(),
        rules: vec![&rules],
        frames: Vec::new(),
        listened: Duration::from_secs(12),
        long_enough: false,
        vips: Vec::new(),
        claims: Vec::new(),
    };
    let findings = judge(&segment);
    assert!(
        findings.iter().any(|finding| finding.verdict.word() == "warning"
            && finding.found.contains("less than three intervals"))
    );
}
