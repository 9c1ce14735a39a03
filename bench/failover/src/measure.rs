//! From captured frames and requests to a record: pure.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use vip_lab::Stamp;
use vip_lab::requests::Report;
use vip_lab::wire::{Direction, Frame, Packet};

use crate::record::{ClientView, WireTimes};

/// An answer that took longer had to wait for more than the server: a SYN is sent again after a second.
const SLOW: Duration = Duration::from_millis(200);

/// A move to look for on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// Nothing before this belongs to it.
    pub(crate) since: Stamp,
    /// The owner so far, by the name of its port.
    pub(crate) old: &'a str,
    /// The owner from then on.
    pub(crate) new: &'a str,
    /// All that move.
    pub(crate) vips: &'a [IpAddr],
    /// The old owner's last word, and what the timers ask for from there on.
    pub(crate) word: Word,
}

/// What the new owner reacts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Silence after an advertisement: so long.
    Advert(Duration),
    /// Priority 0: so long after it.
    PriorityZero(Duration),
    /// Silence after whatever it sent last: so long.
    Silence(Duration),
    /// Nothing that the old owner says or does.
    None,
}

/// Whether it is an IPv4 advertisement (every virtual router here has that family) of a router that does not leave.
pub(crate) fn is_advert_of(frame: &Frame, node: &str) -> bool {
    is_vrrp(frame, node, |priority| priority > 0)
}

fn is_vrrp(frame: &Frame, node: &str, priority: impl Fn(u8) -> bool) -> bool {
    frame.direction == Direction::FromNode
        && *frame.port == *node
        && matches!(&frame.packet, Packet::Vrrp(advert) if advert.source.is_ipv4() && priority(advert.priority))
}

/// Reads the times of a move; `frames` in the order of their stamps.
///
/// # Errors
/// A frame of it is not (yet) there: says which.
pub(crate) fn wire_times(frames: &[Frame], wanted: &Wanted<'_>) -> Result<WireTimes> {
    let Wanted { since, old, new, vips, word } = *wanted;
    let begins = frames.partition_point(|frame| frame.at < since);
    let advert = frames[begins..]
        .iter()
        .find(|frame| is_advert_of(frame, new))
        .with_context(|| format!("no advertisement of {new}"))?
        .at;
    let (first, last) = announcements(&frames[begins..], new, vips)?;
    let (spoken, timer) = match word {
        Word::Advert(timer) => {
            let before = frames.iter().rfind(|frame| frame.at < advert && is_advert_of(frame, old));
            let before = before.with_context(|| format!("no advertisement of {old} before {new}'s"))?.at;
            (Some((before, before)), Some(timer))
        }
        Word::Silence(timer) => {
            let is_of_old = |frame: &&Frame| {
                frame.direction == Direction::FromNode && *frame.port == *old && frame.at < advert
            };
            let last =
                frames.iter().rfind(is_of_old).with_context(|| format!("nothing of {old} before {new}"))?.at;
            (Some((last, last)), Some(timer))
        }
        Word::PriorityZero(timer) => {
            let is_zero = |frame: &&Frame| is_vrrp(frame, old, |priority| priority == 0);
            let mut zeros = frames[begins..].iter().take_while(|frame| frame.at < advert).filter(is_zero);
            let first = zeros.next().with_context(|| format!("no priority 0 of {old}"))?.at;
            (Some((first, zeros.last().map_or(first, |last| last.at))), Some(timer))
        }
        Word::None => (None, None),
    };
    let timer_us = timer.map(|timer| timer.as_secs_f64() * 1e6);
    let death_to_word_us = match (word, spoken) {
        (Word::PriorityZero(_), Some((first, _))) => Some(micros(since, first)),
        _ => None,
    };
    Ok(WireTimes {
        timer_us,
        word_to_advert_us: spoken.map(|(word, _)| micros(word, advert)),
        late_us: spoken.zip(timer_us).map(|((_, last), timer)| micros(last, advert) - timer),
        word_to_announcement_us: spoken.map(|(word, _)| micros(word, first)),
        announced_at_us: first.as_nanos() as f64 / 1e3,
        advert_to_announcement_us: micros(advert, first),
        advert_to_all_announced_us: micros(advert, last),
        death_to_word_us,
    })
}

/// When the first of `vips` was announced, and when the last was for the first time.
fn announcements(frames: &[Frame], new: &str, vips: &[IpAddr]) -> Result<(Stamp, Stamp)> {
    let mut missing: HashSet<IpAddr> = vips.iter().copied().collect();
    let mut first = None;
    for frame in frames.iter().filter(|frame| frame.direction == Direction::FromNode && *frame.port == *new) {
        let vip: Option<IpAddr> = match &frame.packet {
            Packet::Arp(arp) => Some(arp.sender.into()),
            Packet::NeighborAdvertisement(na) => Some(na.target.into()),
            _ => None,
        };
        let Some(vip) = vip.filter(|&vip| frame.packet.announces(vip)) else { continue };
        if missing.remove(&vip) {
            let first = *first.get_or_insert(frame.at);
            if missing.is_empty() {
                return Ok((first, frame.at));
            }
        }
    }
    bail!("{new} has not announced {} of {} VIPs", missing.len(), vips.len())
}

/// From one stamp to the other, negative if they come the other way round.
fn micros(from: Stamp, to: Stamp) -> f64 {
    let forth = (to - from).as_secs_f64();
    let back = (from - to).as_secs_f64();
    (forth - back) * 1e6
}

/// What the requests that began from `from` on, before `to`, say of a move in that time.
pub(crate) fn client_view(report: &Report, from: Stamp, to: Stamp) -> ClientView {
    let around = report.started_between(from, to);
    ClientView {
        requests: around.requests().len(),
        lost: around.lost().count(),
        losses: around
            .lost()
            .map(|lost| (micros(from, lost.start) / 1e3, format!("{:?}", lost.outcome)))
            .collect(),
        slow: around.slow(SLOW).count(),
        gap_ms: report.gap_around(from, to).as_secs_f64() * 1e3,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use vip_lab::Mac;
    use vip_lab::wire::{Advert, Arp};

    use super::*;

    const VIPS: [IpAddr; 2] =
        [IpAddr::V4(Ipv4Addr::new(10, 0, 1, 0)), IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1))];

    fn frame(at_us: u64, port: &str, packet: Packet) -> Frame {
        Frame {
            at: Stamp::from_nanos(at_us * 1000),
            port: port.into(),
            direction: Direction::FromNode,
            source: Mac([2, 0, 0, 0, 0, 1]),
            destination: Mac([0xff; 6]),
            packet,
            bytes: Box::default(),
        }
    }

    fn advert(at_us: u64, port: &str, priority: u8) -> Frame {
        let packet = Packet::Vrrp(Advert {
            source: Ipv4Addr::new(10, 0, 0, 1).into(),
            destination: Ipv4Addr::new(224, 0, 0, 18).into(),
            hop_limit: 255,
            version: 3,
            vrid: 51,
            priority,
            interval_cs: 1,
            count: 2,
            addresses: VIPS.to_vec(),
        });
        frame(at_us, port, packet)
    }

    fn announcement(at_us: u64, port: &str, vip: IpAddr) -> Frame {
        let IpAddr::V4(vip) = vip else { panic!("an IPv4 address") };
        let mac = Mac([2, 0, 0, 0, 0, 2]);
        let arp = Arp { operation: 2, sender_mac: mac, sender: vip, target_mac: mac, target: vip };
        frame(at_us, port, Packet::Arp(arp))
    }

    fn wanted(word: Word) -> Wanted<'static> {
        Wanted { since: Stamp::from_nanos(15_000_000), old: "node1", new: "node2", vips: &VIPS, word }
    }

    #[test]
    fn a_crash_counts_from_the_last_advertisement_even_if_that_was_before_the_blow() {
        let frames = [
            advert(10_000, "node1", 200),
            advert(46_200, "node2", 100),
            announcement(46_250, "node2", VIPS[0]),
            announcement(46_280, "node2", VIPS[0]),
            announcement(46_300, "node2", VIPS[1]),
        ];
        let times = wire_times(&frames, &wanted(Word::Advert(Duration::from_micros(36_000)))).unwrap();
        assert_eq!(times.word_to_advert_us, Some(36_200.0));
        assert_eq!(times.word_to_announcement_us, Some(36_250.0));
        assert!((times.late_us.unwrap() - 200.0).abs() < 1e-6);
        assert!((times.advert_to_announcement_us - 50.0).abs() < 1e-6);
        assert!((times.advert_to_all_announced_us - 100.0).abs() < 1e-6);
    }

    #[test]
    fn a_handover_counts_from_the_first_priority_0_and_its_timer_from_the_last() {
        let frames = [
            advert(14_000, "node1", 200),
            advert(16_000, "node1", 0),
            advert(16_600, "node1", 0),
            announcement(22_690, "node2", VIPS[0]),
            advert(22_700, "node2", 100),
            announcement(22_730, "node2", VIPS[1]),
            advert(22_800, "node1", 0),
        ];
        let times = wire_times(&frames, &wanted(Word::PriorityZero(Duration::from_micros(6_000)))).unwrap();
        assert_eq!(times.word_to_advert_us, Some(6_700.0));
        assert_eq!(times.death_to_word_us, Some(1_000.0));
        assert!((times.late_us.unwrap() - 100.0).abs() < 1e-6, "from the last before it");
        assert!((times.advert_to_announcement_us + 10.0).abs() < 1e-6, "it came before: negative");
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |frames: &[Frame], word| wire_times(frames, &wanted(word)).unwrap_err().to_string();
        let mut frames = vec![advert(10_000, "node1", 200)];
        assert_eq!(error(&frames, Word::None), "no advertisement of node2");
        frames.push(advert(20_000, "node2", 100));
        frames.push(announcement(20_010, "node2", VIPS[1]));
        assert_eq!(error(&frames, Word::None), "node2 has not announced 1 of 2 VIPs");
        frames.push(announcement(20_020, "node2", VIPS[0]));
        assert_eq!(error(&frames, Word::PriorityZero(Duration::ZERO)), "no priority 0 of node1");
        assert!(wire_times(&frames, &wanted(Word::None)).is_ok());
    }

    #[test]
    fn the_announcements_of_others_do_not_count() {
        let frames = [
            advert(20_000, "node2", 100),
            announcement(20_010, "node1", VIPS[0]),
            announcement(20_010, "node1", VIPS[1]),
        ];
        let error = wire_times(&frames, &wanted(Word::None)).unwrap_err().to_string();
        assert_eq!(error, "node2 has not announced 2 of 2 VIPs");
    }
}
