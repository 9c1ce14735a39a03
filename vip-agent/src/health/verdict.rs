//! One probe: from outcomes, which may flicker, to a verdict, which should not.

use std::num::NonZeroU16;

/// What probing once came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Up,
    /// Not so, and why: a few words for log and status.
    Down(String),
}

/// How outcomes become a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Outcomes in a row that make an up probe down.
    pub fall: NonZeroU16,
    /// Outcomes in a row that make a down probe up.
    pub rise: NonZeroU16,
    /// The verdict before the first outcome; the first one decides alone, whatever `fall` and `rise` say.
    pub initially_up: bool,
}

impl Thresholds {
    /// Each outcome is a verdict: for what is told and not polled.
    pub const AT_ONCE: Self = Self { fall: NonZeroU16::MIN, rise: NonZeroU16::MIN, initially_up: false };
}

/// The present verdict on a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    thresholds: Thresholds,
    up: bool,
    /// Outcomes in a row that contradict the verdict.
    against: u16,
    /// Whether there was an outcome.
    probed: bool,
    last_error: Option<String>,
}

impl Verdict {
    /// Before the first outcome.
    pub fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, up: thresholds.initially_up, against: 0, probed: false, last_error: None }
    }

    /// Takes an outcome in; whether the verdict is another one now.
    pub fn observe(&mut self, outcome: Outcome) -> bool {
        let up = outcome == Outcome::Up;
        self.last_error = match outcome {
            Outcome::Up => None,
            Outcome::Down(why) => Some(why),
        };
        let first = !std::mem::replace(&mut self.probed, true);
        if up == self.up {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        let enough = if up { self.thresholds.rise } else { self.thresholds.fall };
        if !first && self.against < enough.get() {
            return false;
        }
        self.up = up;
        self.against = 0;
        true
    }

    /// There was no outcome for too long, and nobody knows: down, whatever `fall` says. Whether that is another verdict.
    pub fn expire(&mut self, why: String) -> bool {
        self.last_error = Some(why);
        self.probed = true;
        self.against = 0;
        std::mem::replace(&mut self.up, false)
    }

    /// Begins with another's verdict, and not with the initial one.
    pub fn inherit(&mut self, up: bool, why: Option<String>) {
        (self.up, self.last_error, self.probed) = (up, why, true);
    }

    /// Goes on by other thresholds; the verdict stays.
    pub fn judge_by(&mut self, thresholds: Thresholds) {
        if !self.probed {
            self.up = thresholds.initially_up;
        }
        self.thresholds = thresholds;
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Whether there was an outcome.
    pub fn is_proven(&self) -> bool {
        self.probed
    }

    /// Why the last outcome was not up.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Why it is down, for people.
    pub(super) fn reason(&self) -> &str {
        match (&self.last_error, self.probed) {
            (Some(error), _) => error,
            (None, true) => "not up for long enough",
            (None, false) => "not probed yet",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn down() -> Outcome {
        Outcome::Down("refused".into())
    }

    fn verdict(fall: u16, rise: u16, initially_up: bool) -> Verdict {
        let times = |times| NonZeroU16::new(times).unwrap();
        Verdict::new(Thresholds { fall: times(fall), rise: times(rise), initially_up })
    }

    #[test]
    fn initial_holds_until_the_first_outcome_which_decides_alone() {
        for initially_up in [true, false] {
            let mut verdict = verdict(3, 3, initially_up);
            assert_eq!(verdict.is_up(), initially_up);
            assert!(verdict.observe(if initially_up { down() } else { Outcome::Up }));
            assert_eq!(verdict.is_up(), !initially_up);
        }
    }

    #[test]
    fn fall_outcomes_in_a_row_make_it_down_and_rise_make_it_up() {
        let mut verdict = verdict(3, 2, true);
        let outcomes =
            [Outcome::Up, down(), down(), Outcome::Up, down(), down(), down(), Outcome::Up, Outcome::Up];
        let changes = outcomes.map(|outcome| verdict.observe(outcome));
        assert_eq!(changes, [false, false, false, false, false, false, true, false, true]);
    }

    #[test]
    fn what_expired_is_down_at_once_and_comes_back_by_rise() {
        let mut verdict = verdict(3, 2, true);
        verdict.observe(Outcome::Up);
        assert!(verdict.expire("nothing heard".into()));
        assert_eq!((verdict.is_up(), verdict.reason()), (false, "nothing heard"));
        assert!(!verdict.expire("nothing heard".into()));
        assert_eq!([Outcome::Up, Outcome::Up].map(|outcome| verdict.observe(outcome)), [false, true]);
    }

    #[test]
    fn the_last_error_is_that_of_the_last_outcome() {
        let mut verdict = verdict(2, 2, true);
        assert_eq!(verdict.reason(), "not probed yet");
        verdict.observe(down());
        assert_eq!((verdict.is_up(), verdict.last_error()), (false, Some("refused")));
        verdict.observe(Outcome::Up);
        assert_eq!((verdict.is_up(), verdict.last_error()), (false, None));
        assert_eq!(verdict.reason(), "not up for long enough");
    }

    #[test]
    fn other_thresholds_leave_a_verdict_but_not_a_mere_beginning() {
        let mut fresh = verdict(1, 1, true);
        fresh.judge_by(Thresholds::AT_ONCE);
        assert!(!fresh.is_up());
        fresh.observe(Outcome::Up);
        fresh.judge_by(Thresholds::AT_ONCE);
        assert!(fresh.is_up());
    }

    proptest! {
        /// Against a reference that looks back over all outcomes.
        #[test]
        fn the_verdict_is_what_the_last_long_enough_run_was(
            fall in 1..5_u16,
            rise in 1..5_u16,
            initially_up: bool,
            outcomes in proptest::collection::vec(any::<bool>(), 0..60),
        ) {
            let mut verdict = verdict(fall, rise, initially_up);
            for end in 0..outcomes.len() {
                verdict.observe(if outcomes[end] { Outcome::Up } else { down() });
                let mut expected = outcomes[0];
                for at in 0..=end {
                    let run = outcomes[..=at].iter().rev().take_while(|up| **up == outcomes[at]).count();
                    let enough = if outcomes[at] { rise } else { fall };
                    if run >= usize::from(enough) {
                        expected = outcomes[at];
                    }
                }
                prop_assert_eq!(verdict.is_up(), expected);
            }
        }
    }
}
