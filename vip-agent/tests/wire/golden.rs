//! Frames recorded from keepalived 2.2.7: what it sends we read, and what it would send we send.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use serde::Deserialize;
use vip_agent::dataplane::announce::Announcements;
use vip_agent::types::{Centiseconds, ChecksumMode, MacAddr, Seconds, VirtualRouterId};
use vip_agent::vrrp::auth::Password;
use vip_agent::vrrp::codec::{DecodeOptions, Dialect, Fields, LEAVING};
use vip_agent::vrrp::discard::Discard;
use vip_agent::vrrp::prepared::PreparedAdverts;
use vip_agent::vrrp::receive::{Packet, Received, Rules, Senders};

use crate::fixture::{OWN_MAC, ip};

#[derive(Deserialize)]
struct Recorded {
    advert: Hex,
    prio0: Hex,
    garp: Option<Hex>,
    na: Option<Hex>,
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Hex(Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let byte = |at| u8::from_str_radix(&text[at..at + 2], 16);
        (0..text.len()).step_by(2).map(byte).collect::<Result<_, _>>().map(Self)
    }
}

fn recorded() -> BTreeMap<String, Recorded> {
    serde_json::from_str(include_str!("../golden/keepalived-2.2.7.json")).expect("golden frames")
}

/// The recorded cases, with what their names say.
fn cases() -> impl Iterator<Item = (String, Recorded, Expected)> {
    recorded().into_iter().map(|(name, frames)| {
        let expected = Expected::of(&name);
        (name, frames, expected)
    })
}

struct Expected {
    priority: u8,
    dialect: Dialect,
    source: IpAddr,
    destination: IpAddr,
    vips: Vec<IpAddr>,
    mac: MacAddr,
}

impl Expected {
    fn of(name: &str) -> Self {
        let says = |part| name.contains(part);
        let pick = |is: bool, yes: &str, no: &str| ip(if is { yes } else { no });
        let (v6, unicast) = (says("ip6"), says("unicast"));
        Self {
            priority: if says("prio255") { 255 } else { 150 },
            dialect: if says("v2") { version_2(says("pass")) } else { version_3(name) },
            source: match (v6, unicast) {
                (false, _) => ip("192.0.2.1"),
                (true, false) => ip("fe80::ff:fe00:1"),
                (true, true) => ip("2001:db8::1"),
            },
            destination: match (v6, unicast) {
                (false, true) => ip("192.0.2.2"),
                (true, true) => ip("2001:db8::2"),
                (v6, false) => pick(v6, "ff02::12", "224.0.0.18"),
            },
            vips: match () {
                () if v6 => vec![ip("fe80::5:100"), ip("2001:db8::100")],
                () if says("two_vips") => vec![ip("192.0.2.100"), ip("192.0.2.101")],
                () => vec![ip("192.0.2.100")],
            },
            mac: MacAddr(match (says("vmac"), v6) {
                (true, false) => [0, 0, 0x5e, 0, 1, 51],
                (true, true) => [0, 0, 0x5e, 0, 2, 51],
                (false, _) => [2, 0, 0, 0, 0, 1],
            }),
        }
    }

    /// The rules of the node that keepalived spoke to.
    fn rules(&self, strict: bool) -> Rules {
        let (decode, vips) = (DecodeOptions { dialect: self.dialect, strict }, self.vips.clone());
        let own_mac = OWN_MAC;
        if self.destination.is_multicast() {
            let own = if self.destination.is_ipv6() { ip("fe80::2") } else { ip("192.0.2.2") };
            return Rules { own, own_mac, senders: Senders::Multicast, decode, auth: None, vips };
        }
        let senders = Senders::Unicast { peers: vec![self.source], min_ttl: None };
        Rules { own: self.destination, own_mac, senders, decode, auth: None, vips }
    }

    /// Version 2 has none of the pseudo-header's modes.
    fn checksum(&self) -> ChecksumMode {
        match self.dialect {
            Dialect::V2 { .. } => ChecksumMode::Rfc9568,
            Dialect::V3 { checksum, .. } => checksum,
        }
    }

    fn fields(&self) -> Fields<'_> {
        Fields {
            virtual_router_id: VirtualRouterId::new(51).expect("a VRID"),
            priority: self.priority,
            dialect: self.dialect,
            addresses: &self.vips,
        }
    }
}

fn version_2(authenticated: bool) -> Dialect {
    let password = authenticated.then(|| Password::new("secret12").expect("a password"));
    Dialect::V2 { interval: Seconds::ONE, password }
}

fn version_3(name: &str) -> Dialect {
    let centiseconds = match () {
        () if name.contains("_100cs") => 100,
        () if name.contains("_1cs") => 1,
        () => 10,
    };
    let checksum = if name.contains("oldcsum") { ChecksumMode::OldUnicast } else { ChecksumMode::Pseudo };
    Dialect::V3 { interval: Centiseconds::new(centiseconds).expect("an interval"), checksum }
}

/// What follows the Ethernet and IP headers, neither of which has options here.
fn ip_payload(frame: &[u8]) -> &[u8] {
    if frame[12] == 0x08 { &frame[34..] } else { &frame[54..] }
}

fn receive<'a>(frame: &'a Hex, rules: &Rules) -> Result<Received<'a>, Discard> {
    Packet::parse(&frame.0)?.accept(rules)
}

#[test]
fn the_recording_holds_ten_cases_of_version_3_and_two_of_version_2() {
    let versions = cases().map(|(_, _, expected)| expected.dialect.version().get());
    assert_eq!(versions.collect::<Vec<_>>(), [&[2; 2][..], &[3; 10]].concat());
}

#[test]
fn every_recorded_advert_is_accepted_and_read_right() {
    for (name, frames, expected) in cases() {
        for (frame, priority) in [(&frames.advert, expected.priority), (&frames.prio0, LEAVING)] {
            let received = receive(frame, &expected.rules(true)).expect(&name);
            assert_eq!(received.source, expected.source, "{name}");
            assert_eq!(received.source_mac, expected.mac, "{name}");
            assert_eq!(received.advert.virtual_router_id.get(), 51, "{name}");
            assert_eq!(received.advert.priority, priority, "{name}");
            assert_eq!(received.advert.interval, expected.dialect.interval(), "{name}");
            assert_eq!(received.advert.checksum, expected.checksum(), "{name}");
            assert_eq!(received.remark, None, "{name}");
            assert_eq!(received.advert.addresses().collect::<Vec<_>>(), expected.vips, "{name}");
        }
    }
}

#[test]
fn our_adverts_are_byte_for_byte_those_of_keepalived() {
    for (name, frames, expected) in cases() {
        let destinations = [expected.destination];
        let mut adverts =
            PreparedAdverts::build(&expected.fields(), expected.source, &destinations).expect(&name);
        let sent = |adverts: &PreparedAdverts| adverts.iter().next().map(|(_, advert)| advert.to_vec());
        assert_eq!(sent(&adverts).as_deref(), Some(ip_payload(&frames.advert.0)), "{name}");
        adverts.set_priority(LEAVING);
        assert_eq!(sent(&adverts).as_deref(), Some(ip_payload(&frames.prio0.0)), "{name}");
    }
}

#[test]
fn the_old_unicast_checksum_is_taken_whatever_mode_is_configured() {
    let frames = &recorded()["v3_ip4_unicast_oldcsum"];
    let expected = Expected::of("v3_ip4_unicast_oldcsum");
    for configured in [ChecksumMode::Pseudo, ChecksumMode::Rfc9568] {
        let mut rules = expected.rules(false);
        let interval = Centiseconds::new(10).expect("an interval");
        rules.decode.dialect = Dialect::V3 { interval, checksum: configured };
        let received = receive(&frames.advert, &rules).expect("accepted");
        assert_eq!(received.advert.checksum, ChecksumMode::OldUnicast);
        rules.decode.strict = true;
        assert_eq!(receive(&frames.advert, &rules), Err(Discard::BadChecksum));
    }
}

#[test]
fn adverts_of_version_2_are_none_to_an_instance_of_version_3_nor_the_reverse() {
    let recorded = recorded();
    for [listener, speaker] in [["v3_ip4_mcast_100cs", "v2_ip4_pass"], ["v2_ip4_pass", "v3_ip4_mcast_100cs"]]
    {
        let rules = Expected::of(listener).rules(false);
        for frame in [&recorded[speaker].advert, &recorded[speaker].prio0] {
            assert_eq!(receive(frame, &rules), Err(Discard::VersionMismatch), "{speaker}");
        }
    }
}

#[test]
fn the_recorded_password_is_told_from_another_and_from_none() {
    let recorded = recorded();
    let with = |password: Option<&str>| {
        let mut rules = Expected::of("v2_ip4").rules(false);
        let password = password.map(|password| Password::new(password).expect("a password"));
        rules.decode.dialect = Dialect::V2 { interval: Seconds::ONE, password };
        rules
    };
    let (none, pass) = (&recorded["v2_ip4_noauth"], &recorded["v2_ip4_pass"]);
    for (own, none_is, pass_is) in [
        (Some("secret12"), Some(Discard::AuthTypeMismatch), None),
        (Some("secret1"), Some(Discard::AuthTypeMismatch), Some(Discard::WrongPassword)),
        (None, None, Some(Discard::AuthTypeMismatch)),
    ] {
        for frame in [&none.advert, &none.prio0] {
            assert_eq!(receive(frame, &with(own)).err(), none_is, "{own:?}");
        }
        for frame in [&pass.advert, &pass.prio0] {
            assert_eq!(receive(frame, &with(own)).err(), pass_is, "{own:?}");
        }
    }
}

/// But for what the IP stack numbers: the identification, which is 0 in packets that are never fragmented (and so the IPv4
/// header's checksum), and the flow label.
#[test]
fn our_frames_from_a_virtual_mac_are_those_of_keepalived() {
    let mut compared = 0;
    for (name, frames, expected) in cases().filter(|(name, ..)| name.contains("vmac")) {
        let mut adverts =
            PreparedAdverts::build_frame(&expected.fields(), expected.source, expected.mac).expect(&name);
        for (priority, theirs) in [(expected.priority, &frames.advert), (LEAVING, &frames.prio0)] {
            adverts.set_priority(priority);
            let (destination, ours) = adverts.iter().next().expect("a frame");
            assert_eq!(destination, expected.destination, "{name}");
            let (mut ours, mut theirs) = (ours.to_vec(), theirs.0.clone());
            if name.contains("ip6") {
                theirs[15] &= 0xf0;
                theirs[16..18].fill(0);
            } else {
                assert_eq!(ours[18..22], [0, 0, 0x40, 0], "{name}");
                for frame in [&mut ours, &mut theirs] {
                    frame[18..22].fill(0);
                    frame[24..26].fill(0);
                }
            }
            assert_eq!(ours, theirs, "{name}");
            compared += 1;
        }
    }
    assert_eq!(compared, 4);
}

#[test]
fn our_gratuitous_arp_request_is_keepaliveds() {
    for (name, frames) in recorded() {
        let Some(garp) = frames.garp else { continue };
        let expected = Expected::of(&name);
        let announcements = Announcements::build([expected.vips[0]], expected.mac, false);
        assert_eq!(announcements.second.len(), 1, "{name}");
        assert_eq!(&announcements.second[0][..], &garp.0, "{name}");
    }
}

#[test]
fn our_neighbour_advertisement_is_keepaliveds() {
    for (name, frames, expected) in cases() {
        let Some(na) = frames.na else { continue };
        let announcements = Announcements::build([expected.vips[0]], expected.mac, false);
        assert_eq!(&announcements.first[0][..], &na.0, "{name}");
        assert!(announcements.second.is_empty(), "{name}");
    }
}

/// Files of a fuzz target's corpus, each what it should be; `VIPLANE_BLESS=1` writes them.
fn assert_corpus<'a>(target: &str, seeds: impl Iterator<Item = (String, &'a [u8])>) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/__fuzz__");
    let folder = Path::new(path).join(target).join("corpus");
    for (name, bytes) in seeds {
        let file = folder.join(name);
        if std::env::var_os("VIPLANE_BLESS").is_some() {
            fs::create_dir_all(&folder).expect("a folder for the corpus");
            fs::write(&file, bytes).expect("a file of the corpus");
        }
        assert_eq!(fs::read(&file).ok().as_deref(), Some(bytes), "{}", file.display());
    }
}

#[test]
fn fuzzing_begins_with_the_recorded_frames() {
    let recorded = recorded();
    let frames = || {
        recorded.iter().flat_map(|(name, Recorded { advert, prio0, garp, na })| {
            let kinds = [
                ("advert", Some(advert)),
                ("prio0", Some(prio0)),
                ("garp", garp.as_ref()),
                ("na", na.as_ref()),
            ];
            kinds.into_iter().filter_map(move |(kind, frame)| Some((format!("{name}-{kind}"), &frame?.0[..])))
        })
    };
    assert_eq!(frames().count(), 36);
    assert_corpus("frame", frames());
    let adverts = frames().filter(|(name, _)| name.ends_with("-advert") || name.ends_with("-prio0"));
    assert_corpus("codec", adverts.map(|(name, frame)| (name, ip_payload(frame))));
}
