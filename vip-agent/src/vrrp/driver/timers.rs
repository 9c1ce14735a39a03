//! Which instance is due first: a binary heap that knows where each instance is, so that a timer can be moved.

use super::InstanceId;
use crate::types::MonotonicTime;

/// One time per instance. Setting one costs the logarithm of the number that are set, and allocates nothing once there is
/// room for the instance.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// A binary heap, the earliest on top; of equal times the one with the lower id.
    heap: Vec<(MonotonicTime, InstanceId)>,
    /// Where in the heap an instance is, by its id.
    places: Vec<Option<usize>>,
}

impl Timers {
    /// Makes room for an instance.
    pub(super) fn make_room(&mut self, id: InstanceId) {
        let needed = usize::from(id.0) + 1;
        if self.places.len() < needed {
            self.places.resize(needed, None);
            self.heap.reserve(needed - self.heap.len());
        }
    }

    /// Sets, moves or (NEVER) takes away an instance's time. Without room for it nothing is set.
    pub(super) fn set(&mut self, id: InstanceId, at: MonotonicTime) {
        let Some(&place) = self.places.get(usize::from(id.0)) else { return };
        match place {
            None if at == MonotonicTime::NEVER => {}
            None => {
                self.heap.push((at, id));
                self.settle(self.heap.len() - 1);
            }
            Some(place) if at == MonotonicTime::NEVER => {
                self.heap.swap_remove(place);
                self.places[usize::from(id.0)] = None;
                if place < self.heap.len() {
                    self.settle(place);
                }
            }
            Some(place) if self.heap[place].0 == at => {}
            Some(place) => {
                self.heap[place].0 = at;
                self.settle(place);
            }
        }
    }

    /// The earliest time and whose it is.
    pub(super) fn first(&self) -> Option<(MonotonicTime, InstanceId)> {
        self.heap.first().copied()
    }

    /// Brings what stands here, as the only one that may, to its right place.
    fn settle(&mut self, place: usize) {
        let place = self.rise(place);
        self.sink(place);
    }

    fn rise(&mut self, mut place: usize) -> usize {
        while place > 0 && self.heap[place] < self.heap[(place - 1) / 2] {
            self.heap.swap(place, (place - 1) / 2);
            self.note(place);
            place = (place - 1) / 2;
        }
        self.note(place);
        place
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let children =
                [2 * place + 1, 2 * place + 2].into_iter().filter(|&child| child < self.heap.len());
            let Some(least) = children.min_by_key(|&child| self.heap[child]) else { return };
            if self.heap[place] <= self.heap[least] {
                return;
            }
            self.heap.swap(place, least);
            self.note(place);
            self.note(least);
            place = least;
        }
    }

    fn note(&mut self, place: usize) {
        let (_, InstanceId(id)) = self.heap[place];
        self.places[usize::from(id)] = Some(place);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const ROOM: u16 = 40;

    fn timers() -> Timers {
        let mut timers = Timers::default();
        timers.make_room(InstanceId(ROOM - 1));
        timers
    }

    /// Few different times, so that equal ones are common.
    fn time() -> impl Strategy<Value = MonotonicTime> {
        prop_oneof![4 => (0..12_u64).prop_map(MonotonicTime), 1 => Just(MonotonicTime::NEVER)]
    }

    proptest! {
        /// The plain model: a map that is searched for its least entry each time.
        #[test]
        fn the_first_is_always_the_one_that_a_search_of_all_finds(
            steps in proptest::collection::vec((0..ROOM, time()), 1..400),
        ) {
            let (mut timers, mut plain) = (timers(), BTreeMap::new());
            for (id, at) in steps {
                timers.set(InstanceId(id), at);
                if at == MonotonicTime::NEVER {
                    plain.remove(&id);
                } else {
                    plain.insert(id, at);
                }
                let expected = plain.iter().map(|(&id, &at)| (at, InstanceId(id))).min();
                prop_assert_eq!(timers.first(), expected);
            }
        }

        #[test]
        fn taken_off_one_by_one_they_come_in_order(times in proptest::collection::vec(time(), ROOM as usize)) {
            let mut timers = timers();
            for (id, &at) in (0..).zip(&times) {
                timers.set(InstanceId(id), at);
            }
            let mut came = Vec::new();
            while let Some((at, id)) = timers.first() {
                came.push((at, id));
                timers.set(id, MonotonicTime::NEVER);
            }
            let set = (0..).map(InstanceId).zip(&times).filter(|(_, at)| **at != MonotonicTime::NEVER);
            let mut expected: Vec<_> = set.map(|(id, &at)| (at, id)).collect();
            expected.sort_unstable();
            prop_assert_eq!(came, expected);
        }

        /// Whoever acts on the first and sets it anew gets round to everybody.
        #[test]
        fn nobody_is_passed_over_by_those_that_are_set_anew(starts in proptest::collection::vec(0..50_u64, 2..=ROOM as usize)) {
            let mut timers = timers();
            for (id, &at) in (0..).zip(&starts) {
                timers.set(InstanceId(id), MonotonicTime(at));
            }
            let mut acted = vec![0_u32; starts.len()];
            for _ in 0..starts.len() * 10 {
                let (at, id) = timers.first().expect("all are set");
                acted[usize::from(id.0)] += 1;
                timers.set(id, MonotonicTime(at.0 + 100));
            }
            prop_assert!(acted.iter().all(|&times| times == 10), "{:?}", acted);
        }
    }

    #[test]
    fn once_there_is_room_nothing_is_allocated() {
        let mut timers = timers();
        let room = (timers.heap.capacity(), timers.places.capacity());
        for round in 0..3 {
            for id in 0..ROOM {
                timers.set(InstanceId(id), MonotonicTime(u64::from(id * 7 % 11) + round));
            }
        }
        assert_eq!((timers.heap.capacity(), timers.places.capacity()), room);
    }

    #[test]
    fn an_instance_without_room_is_not_set() {
        let mut timers = timers();
        timers.set(InstanceId(ROOM), MonotonicTime(1));
        assert_eq!(timers.first(), None);
    }
}
