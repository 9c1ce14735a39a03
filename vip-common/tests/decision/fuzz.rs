//! A fuzz target: any frame in any state of the maps, against the plain model.
//!
//! As a test it takes the corpus and a few seconds of random bytes; `cargo xtask fuzz decision` looks for long, led by coverage. An
//! input is taken as a frame, and as a list of changes to each of the frames that matter.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bolero::check;

use crate::common::frames::{
    Arp, CLIENT4, Nd, OWN, PRIORITY_TAG, SERVICE_VLAN, STRANGER, Tcp, VIP4, VIRTUAL4, VIRTUAL6, VLAN,
    VLAN_200, ethernet, ipv4,
};
use crate::common::world::World;
use crate::properties::{actual, worlds};
use crate::reference::expected;

const LONGEST_FRAME: usize = 400;

/// How long random inputs are tried.
fn time() -> Duration {
    Duration::from_secs(if std::env::var_os("VIPLANE_FULL").is_some() { 60 } else { 2 })
}

#[test]
fn any_frame_comes_to_what_the_model_says() {
    let seeds = seeds();
    check!(name = "decision")
        .with_test_time(time())
        .with_iterations(usize::MAX)
        .with_max_len(LONGEST_FRAME)
        .for_each(|input: &[u8]| {
            // The first byte says which of them the changes are for: all of them would be slow.
            let seed = input.first().map_or(0, |&first| usize::from(first) % seeds.len());
            for world in worlds() {
                decide(&world, input);
                decide(&world, &changed(&seeds[seed].1, input));
            }
        });
}

/// Twice: the second time with the flows that the first has left.
fn decide(world: &World, frame: &[u8]) {
    for _ in 0..2 {
        let expected = expected(world, frame);
        assert_eq!(actual(world, frame), expected, "{frame:02x?}");
    }
}

/// Bytes after the first: pairs of a place and what is there; a place beyond the end is where the frame ends instead.
fn changed(seed: &[u8], input: &[u8]) -> Vec<u8> {
    let mut frame = seed.to_vec();
    for change in input.get(1..).unwrap_or_default().chunks_exact(2).take(4) {
        let at = usize::from(change[0]);
        if at < frame.len() {
            frame[at] = change[1];
        } else {
            frame.resize(usize::from(change[1]).max(14), 0x5a);
        }
    }
    frame
}

/// One of each kind, by a name.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("arp-question", Arp::question().bytes()),
        ("arp-question-in-a-vlan", Arp { tags: vec![VLAN], ..Arp::question() }.bytes()),
        ("arp-question-in-two-vlans", Arp { tags: vec![SERVICE_VLAN, VLAN_200], ..Arp::question() }.bytes()),
        ("arp-question-with-a-priority", Arp { tags: vec![PRIORITY_TAG], ..Arp::question() }.bytes()),
        ("arp-question-to-us-alone", Arp { to: OWN, ..Arp::question() }.bytes()),
        ("arp-announcement-of-another", Arp::foreign().bytes()),
        ("arp-answer-of-another", Arp { from: STRANGER, sender_mac: STRANGER, ..Arp::answer() }.bytes()),
        ("solicitation", Nd::question().bytes()),
        ("solicitation-in-a-vlan", Nd { tags: vec![VLAN], ..Nd::question() }.bytes()),
        ("duplicate-address-detection", Nd::probe().bytes()),
        ("advertisement-of-another", Nd::foreign().bytes()),
        ("tcp4", Tcp::v4().bytes()),
        ("tcp4-in-a-vlan", Tcp { tags: vec![VLAN], ..Tcp::v4() }.bytes()),
        ("tcp6", Tcp::v6().bytes()),
        ("arp-question-to-the-virtual-mac", Arp { to: VIRTUAL4, ..Arp::question() }.bytes()),
        ("tcp4-to-the-virtual-mac", Tcp { to: VIRTUAL4, ..Tcp::v4() }.bytes()),
        ("tcp6-to-the-virtual-mac", Tcp { to: VIRTUAL6, ..Tcp::v6() }.bytes()),
        ("udp", ethernet(OWN, STRANGER, &[], 0x0800, &ipv4(CLIENT4, VIP4, 17, 0, &[0; 8]))),
        ("vrrp", ethernet(OWN, STRANGER, &[], 0x0800, &ipv4(CLIENT4, [224, 0, 0, 18], 112, 0, &[0x31; 12]))),
    ]
}

#[test]
fn fuzzing_begins_with_a_frame_of_each_kind() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/decision/__fuzz__/decision/corpus");
    for (name, frame) in seeds() {
        let file = folder.join(name);
        if std::env::var_os("VIPLANE_BLESS").is_some() {
            fs::create_dir_all(&folder).expect("a folder for the corpus");
            fs::write(&file, &frame).expect("a file of the corpus");
        }
        assert_eq!(fs::read(&file).ok(), Some(frame), "{}; `VIPLANE_BLESS=1` writes it", file.display());
    }
}
