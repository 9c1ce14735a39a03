//! Gratuitous ARPs and unsolicited neighbour advertisements: at once, repeated, refreshed.

use super::*;

#[test]
fn a_takeover_announces_at_once_then_repeats_then_refreshes() {
    let mut rig = Rig::new().announce(2, 1100.0, Some(60_000.0)).priority(255).started();
    rig.at(150_000.0);
    assert_eq!(rig.announcements, [0.0, 1100.0, 2200.0, 62_200.0, 122_200.0]);
}

#[test]
fn without_refresh_the_repeats_are_the_last() {
    let mut rig = Rig::new().announce(3, 500.0, None).priority(255).started();
    rig.at(600_000.0);
    assert_eq!(rig.announcements, [0.0, 500.0, 1000.0, 1500.0]);
}

#[test]
fn without_repeats_the_refresh_follows_the_takeover() {
    let mut rig = Rig::new().announce(0, 500.0, Some(10_000.0)).priority(255).started();
    rig.at(25_000.0);
    assert_eq!(rig.announcements, [0.0, 10_000.0, 20_000.0]);
}

#[test]
fn a_lower_rival_is_announced_over_now_and_after_its_own_announcement() {
    let mut rig = Rig::new().announce(1, 1100.0, None).active();
    rig.at(5000.0);
    rig.announcements.clear();
    rig.advert(99).at(20_000.0);
    assert_eq!(rig.announcements, [5000.0, 5100.0, 6200.0]);
}

#[test]
fn a_rival_right_after_an_announcement_is_announced_over_a_little_later() {
    let mut rig = Rig::new().active();
    rig.at(40.0).advert(99).at(20_000.0);
    assert_eq!(rig.announcements, [100.0]);
}

#[test]
fn none_goes_out_while_the_lease_is_out() {
    let mut rig = Rig::new().announce(5, 1100.0, Some(10_000.0)).active();
    rig.stopped_until(3000.0).announce_again();
    assert!(rig.announcements.is_empty());
    rig.timer();
    assert_eq!(rig.state(), State::Backup);
    assert!(rig.announcements.is_empty());
}

#[test]
fn a_backup_and_a_drained_router_announce_nothing_even_if_asked() {
    let mut backup = Rig::new().backup();
    backup.announce_again();
    assert!(backup.announcements.is_empty());
    let mut drained = Rig::new().active();
    drained.event(Event::Drain).announce_again().advert(50).announce_again();
    assert!(drained.announcements.is_empty());
}

#[test]
fn an_announcement_out_of_turn_begins_the_repeats_anew() {
    let mut rig = Rig::new().announce(2, 1000.0, None).active();
    rig.at(30_000.0);
    rig.announcements.clear();
    rig.announce_again().at(60_000.0);
    assert_eq!(rig.announcements, [30_000.0, 31_000.0, 32_000.0]);
}

#[test]
fn intervals_of_zero_are_stretched() {
    let mut rig = Rig::new().announce(3, 0.0, Some(0.0)).active();
    rig.at(100.0);
    assert!(rig.announcements.len() <= 10, "{:?}", rig.announcements);
}
