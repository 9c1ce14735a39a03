//! Who answered for an address: whether ever two at once, and who after whom.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::{Mac, Stamp};

/// Answers to questions that are further apart than this are to different questions, even of the same asker.
///
/// The prober asks from a new address each time and comes around only after [`crate::arping::ASKERS`] questions.
const ONE_QUESTION: Duration = Duration::from_millis(5);

/// One answer to "who has the address".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When.
    pub at: Stamp,
    /// The asker: stands for the question, as long as it is a prober's.
    pub asker: IpAddr,
    /// Who answered.
    pub mac: Mac,
}

/// Answers in the order of time.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    answers: Vec<Answer>,
}

/// A span in which one node alone answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// Who.
    pub mac: Mac,
    /// Its first answer of the span.
    pub first: Stamp,
    /// Its last one.
    pub last: Stamp,
    /// How many.
    pub answers: usize,
}

/// One question that two nodes answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoubleAnswer {
    /// The first answer.
    pub at: Stamp,
    /// All who answered.
    pub macs: Vec<Mac>,
}

// === impl Answers ===

impl Answers {
    /// All answers in the order of time.
    pub fn all(&self) -> &[Answer] {
        &self.answers
    }

    /// Those from `from` on, before `to`.
    pub fn between(&self, from: Stamp, to: Stamp) -> Self {
        Self {
            answers: self
                .answers
                .iter()
                .filter(|answer| from <= answer.at && answer.at < to)
                .copied()
                .collect(),
        }
    }

    /// Who answered, one span after another.
    ///
    /// A clean move is `[old, new]`; `[old, new, old, new]` means that both answered for a time.
    pub fn tenures(&self) -> Vec<Tenure> {
        let mut tenures: Vec<Tenure> = Vec::new();
        for &Answer { at, mac, .. } in &self.answers {
            match tenures.last_mut() {
                Some(tenure) if tenure.mac == mac => {
                    tenure.last = at;
                    tenure.answers += 1;
                }
                _ => tenures.push(Tenure { mac, first: at, last: at, answers: 1 }),
            }
        }
        tenures
    }

    /// Who answered, in the order of their spans: a clean move is `[old, new]`.
    pub fn owners(&self) -> Vec<Mac> {
        self.tenures().iter().map(|tenure| tenure.mac).collect()
    }

    /// Questions that were answered by two nodes, or more, within 5 ms. An answer that is later than that shows in
    /// [`Answers::owners`].
    pub fn double(&self) -> Vec<DoubleAnswer> {
        let mut open: BTreeMap<IpAddr, DoubleAnswer> = BTreeMap::new();
        let mut questions = Vec::new();
        for &Answer { at, asker, mac } in &self.answers {
            match open.get_mut(&asker) {
                Some(question) if at - question.at < ONE_QUESTION => {
                    if !question.macs.contains(&mac) {
                        question.macs.push(mac);
                    }
                }
                _ => questions.extend(open.insert(asker, DoubleAnswer { at, macs: vec![mac] })),
            }
        }
        questions.extend(open.into_values());
        questions.retain(|question| question.macs.len() > 1);
        questions.sort_by_key(|question| question.at);
        questions
    }

    /// The longest time without an answer, between the first and the last one.
    pub fn longest_silence(&self) -> Duration {
        self.answers.windows(2).map(|pair| pair[1].at - pair[0].at).max().unwrap_or_default()
    }
}

impl FromIterator<(Stamp, IpAddr, Mac)> for Answers {
    fn from_iter<I: IntoIterator<Item = (Stamp, IpAddr, Mac)>>(answers: I) -> Self {
        let mut answers: Vec<Answer> =
            answers.into_iter().map(|(at, asker, mac)| Answer { at, asker, mac }).collect();
        answers.sort_by_key(|answer| answer.at);
        Self { answers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const NEW: Mac = Mac([2, 0, 0, 0, 0, 2]);

    /// (microsecond, asker, who)
    fn answers(list: &[(u64, u8, Mac)]) -> Answers {
        list.iter()
            .map(|&(at, asker, mac)| (Stamp::from_nanos(at * 1000), IpAddr::from([10, 0, 0, asker]), mac))
            .collect()
    }

    #[test]
    fn a_clean_move_is_old_then_new() {
        let clean = answers(&[(0, 128, OLD), (1000, 129, OLD), (38_000, 130, NEW), (39_000, 131, NEW)]);
        assert_eq!(clean.owners(), [OLD, NEW]);
        assert_eq!(clean.double(), []);
        assert_eq!(clean.longest_silence(), Duration::from_millis(37));
    }

    #[test]
    fn an_answer_of_the_old_owner_after_the_new_ones_first_shows() {
        let late = answers(&[(0, 128, OLD), (1000, 129, NEW), (2000, 130, OLD), (3000, 131, NEW)]);
        assert_eq!(late.owners(), [OLD, NEW, OLD, NEW]);
        assert_eq!(late.double(), [], "no single question had two answers");
    }

    #[test]
    fn one_question_with_two_answers_shows() {
        let both = answers(&[(0, 128, OLD), (20, 128, NEW), (1000, 129, NEW)]);
        assert_eq!(both.double(), [DoubleAnswer { at: Stamp::from_nanos(0), macs: vec![OLD, NEW] }]);
    }

    #[test]
    fn an_asker_that_comes_around_again_asks_a_new_question() {
        let again = answers(&[(0, 128, OLD), (64_000, 128, NEW)]);
        assert_eq!(again.double(), []);
    }

    #[test]
    fn a_span_holds_only_its_answers() {
        let all = answers(&[(0, 128, OLD), (1000, 129, OLD), (2000, 130, NEW)]);
        let from = Stamp::from_nanos(1_000_000);
        assert_eq!(all.between(from, Stamp::MAX).owners(), [OLD, NEW]);
        assert_eq!(all.between(from, Stamp::from_nanos(2_000_000)).owners(), [OLD]);
    }
}
