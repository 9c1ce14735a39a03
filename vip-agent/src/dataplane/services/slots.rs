//! Who has which slot of `BACKENDS`, and how often each has changed hands.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use vip_common::steering::tables::MAX_BACKENDS;

/// A slot of `BACKENDS` in one pair of hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendSlot {
    /// Index into `BACKENDS`.
    pub number: NonZeroU32,
    /// Which of its holders ([`vip_common::steering::tables::Backend::generation`]).
    pub generation: u16,
}

/// Hands slots out: those that never were anybody's first, then whichever has been free for longest. So flows of a former
/// holder are long forgotten when its generation comes again.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    /// Last generation by slot, from slot 1 on.
    generations: Vec<u16>,
    free: VecDeque<NonZeroU32>,
}

impl Slots {
    /// How many can be had.
    pub(super) fn available(&self) -> usize {
        MAX_BACKENDS as usize - 1 - self.generations.len() + self.free.len()
    }

    /// `None` if all are taken.
    pub(super) fn take(&mut self) -> Option<BackendSlot> {
        let fresh = u32::try_from(self.generations.len() + 1).ok().and_then(NonZeroU32::new);
        if let Some(number) = fresh.filter(|number| number.get() < MAX_BACKENDS) {
            self.generations.push(1);
            return Some(BackendSlot { number, generation: 1 });
        }
        let number = self.free.pop_front()?;
        let generation = self.generations.get_mut(index(number))?;
        *generation = generation.wrapping_add(1);
        Some(BackendSlot { number, generation: *generation })
    }

    /// The holder has gone.
    pub(super) fn give_back(&mut self, slot: BackendSlot) {
        self.free.push_back(slot.number);
    }

    /// Goes on with what another process gave out: the generations of the first slots, and which of those have a holder.
    pub(super) fn adopt(generations: Vec<u16>, is_taken: impl Fn(NonZeroU32) -> bool) -> Self {
        let numbers = (1_u32..).filter_map(NonZeroU32::new).take(generations.len());
        let free = numbers.filter(|number| !is_taken(*number)).collect();
        Self { generations, free }
    }
}

fn index(number: NonZeroU32) -> usize {
    number.get() as usize - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_was_given_back_is_the_last_to_be_taken_and_of_another_generation() {
        let mut slots = Slots::default();
        let first = slots.take().unwrap();
        assert_eq!((first.number.get(), first.generation), (1, 1));
        slots.give_back(first);
        let others: Vec<_> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(others.len(), MAX_BACKENDS as usize - 1);
        assert_eq!(others.last(), Some(&BackendSlot { number: first.number, generation: 2 }));
        assert_eq!(slots.available(), 0);
    }

    #[test]
    fn what_another_process_gave_out_is_not_given_again() {
        let mut slots = Slots::adopt(vec![7, u16::MAX, 9], |number| number.get() != 2);
        let taken: Vec<_> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(taken.len(), MAX_BACKENDS as usize - 1 - 2);
        assert_eq!(taken[0].number.get(), 4);
        assert_eq!(taken.last().map(|slot| (slot.number.get(), slot.generation)), Some((2, 0)));
    }
}
