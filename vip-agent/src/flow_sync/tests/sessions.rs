use super::super::session::{SILENCE, Session, Standing};
use super::{at, nonce};

type Numbers = (super::Nonce, Option<super::Nonce>, u64);

/// Two ends that know each other.
fn established() -> (Session, Session) {
    let (mut one, mut other) = (Session::new(nonce(1)), Session::new(nonce(2)));
    let hello = one.numbers();
    assert_eq!(other.admit(hello, at(0), || nonce(20)), Standing::Stranger);
    let question = other.question(hello.0);
    assert_eq!(one.admit(question, at(0), || nonce(10)), Standing::Begun);
    assert_eq!(other.admit(one.numbers(), at(0), || nonce(20)), Standing::Begun);
    assert!(one.is_established() && other.is_established());
    (one, other)
}

#[test]
fn two_ends_that_begin_at_the_same_time_find_each_other() {
    let (mut one, mut other) = (Session::new(nonce(1)), Session::new(nonce(2)));
    let (from_one, from_other) = (one.numbers(), other.numbers());
    assert_eq!(one.admit(from_other, at(0), || nonce(10)), Standing::Stranger);
    assert_eq!(other.admit(from_one, at(0), || nonce(20)), Standing::Stranger);
    let (to_other, to_one) = (one.question(nonce(2)), other.question(nonce(1)));
    assert_eq!(one.admit(to_one, at(0), || nonce(10)), Standing::Begun);
    assert_eq!(other.admit(to_other, at(0), || nonce(20)), Standing::Begun);
    assert_eq!(other.admit(one.numbers(), at(0), || nonce(20)), Standing::Fresh);
}

#[test]
fn nothing_is_heard_twice_and_a_little_disorder_is_no_harm() {
    let (mut one, mut other) = established();
    let said: Vec<Numbers> = (0..100).map(|_| one.numbers()).collect();
    let mut admit = |index: usize| other.admit(said[index], at(1), || nonce(99));
    assert_eq!(admit(1), Standing::Fresh);
    assert_eq!(admit(0), Standing::Fresh);
    assert_eq!(admit(0), Standing::Stale);
    assert_eq!(admit(1), Standing::Stale);
    assert_eq!(admit(90), Standing::Fresh);
    assert_eq!(admit(27), Standing::Fresh, "63 behind");
    assert_eq!(admit(26), Standing::Stale, "64 behind");
    assert_eq!(admit(90), Standing::Stale);
    assert_eq!(admit(99), Standing::Fresh);
}

#[test]
fn an_end_that_was_started_anew_is_heard_once_the_former_one_is_silent() {
    let (_, mut other) = established();
    let mut anew = Session::new(nonce(3));
    let hello = anew.numbers();
    assert_eq!(other.admit(hello, at(0) + SILENCE / 2, || nonce(20)), Standing::Stale);
    let hello = anew.numbers();
    assert_eq!(other.admit(hello, at(0) + SILENCE, || nonce(20)), Standing::Stranger);
    assert_eq!(anew.admit(other.question(hello.0), at(0), || nonce(30)), Standing::Begun);
    assert_eq!(other.admit(anew.numbers(), at(0) + SILENCE, || nonce(21)), Standing::Begun);
    assert_eq!(anew.admit(other.numbers(), at(0), || nonce(30)), Standing::Fresh);
}

#[test]
fn a_recording_of_a_former_session_begins_none_however_long_it_is_played() {
    let (mut one, mut other) = established();
    let recorded: Vec<Numbers> = (0..50).map(|_| one.numbers()).collect();
    // One is started anew, and known by its new number.
    let mut anew = Session::new(nonce(3));
    let hello = anew.numbers();
    other.admit(hello, at(5000), || nonce(20));
    anew.admit(other.question(hello.0), at(5000), || nonce(30));
    assert_eq!(other.admit(anew.numbers(), at(5000), || nonce(21)), Standing::Begun);
    let mut drawn = 100;
    for (index, numbers) in recorded.iter().chain([&hello]).enumerate() {
        // While it is heard, and long after.
        for time in [5001, 50_000 + index as u64] {
            let standing = other.admit(*numbers, at(time), || {
                drawn += 1;
                nonce(drawn)
            });
            assert!(matches!(standing, Standing::Stale | Standing::Stranger), "{standing:?}");
        }
    }
    assert!(drawn <= 101, "a question is the same until it is answered");
    assert_eq!(
        other.admit(anew.numbers(), at(60_000), || nonce(21)),
        Standing::Fresh,
        "and it is still known"
    );
}

#[test]
fn what_was_said_to_another_or_by_oneself_is_nothing() {
    let (mut one, mut other) = established();
    let said = one.numbers();
    // Played back to who said it.
    assert_eq!(one.admit(said, at(1), || nonce(10)), Standing::Stale);
    let mut third = Session::new(nonce(7));
    assert_eq!(third.admit(said, at(1), || nonce(70)), Standing::Stranger);
    assert!(!third.is_established());
    assert_eq!(other.admit(said, at(1), || nonce(20)), Standing::Fresh);
}
