//! The timers of RFC 9568, 6.1, and RFC 3768, 6.1.2, to the nanosecond.

use std::time::Duration;

use super::super::timing::{active_down, skew, staging};
use super::*;

fn nanos(priority: u8, centiseconds: u16) -> (u128, u128) {
    timers(priority, Centiseconds::new(centiseconds).unwrap().into())
}

fn timers(priority: u8, interval: AdvertInterval) -> (u128, u128) {
    let priority = Priority::new(priority).unwrap();
    (skew(priority, interval).as_nanos(), active_down(priority, interval).as_nanos())
}

#[test]
fn skew_at_10_ms_is_not_rounded_away() {
    assert_eq!(nanos(1, 1), (9_960_937, 39_960_937));
    assert_eq!(nanos(100, 1), (6_093_750, 36_093_750));
    assert_eq!(nanos(254, 1), (78_125, 30_078_125));
}

#[test]
fn the_longest_interval_does_not_overflow() {
    assert_eq!(nanos(1, 4095), (40_790_039_062, 163_640_039_062));
}

#[test]
fn neighbouring_priorities_never_share_a_skew() {
    for centiseconds in [1, 3, 100, 4095] {
        let skews: Vec<u128> = (1..=255).map(|priority| nanos(priority, centiseconds).0).collect();
        assert!(skews.windows(2).all(|pair| pair[0] > pair[1]));
        assert!(skews[254] > 0);
    }
}

#[test]
fn skew_of_version_2_is_a_fraction_of_a_second_whatever_the_interval() {
    for seconds in [1, 3, 255] {
        let interval = Seconds::new(seconds).unwrap();
        for (priority, skew) in [(1, 996_093_750), (100, 609_375_000), (254, 7_812_500)] {
            let down = 3_000_000_000 * u128::from(seconds) + skew;
            assert_eq!(timers(priority, interval.into()), (skew, down));
        }
    }
}

#[test]
fn neighbouring_priorities_of_version_2_never_share_a_skew() {
    let skews: Vec<u128> = (1..=255).map(|priority| timers(priority, Seconds::ONE.into()).0).collect();
    assert!(skews.windows(2).all(|pair| pair[0] - pair[1] == 3_906_250));
    assert_eq!(skews[254], 3_906_250);
}

#[test]
fn staging_comes_half_an_interval_before_anyones_active_down() {
    let interval = Centiseconds::new(1).unwrap();
    assert_eq!(staging(interval.into()), Duration::from_millis(25));
}
