//! Runs by seed, and what is left of a failing one when all is taken away that it does not need.

use crate::mutation::Mutation;
use crate::network::Variation;
use crate::scenario::Family;
use crate::watch::Violation;

/// A run that broke an invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which family.
    pub family: &'static str,
    /// Which seed.
    pub seed: u64,
    /// Which rule was broken on purpose.
    pub mutation: Option<Mutation>,
    /// What was found.
    pub violation: Violation,
    variation: Variation,
}

/// What a run that holds comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Runs.
    pub runs: u64,
    /// Events in them.
    pub events: u64,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
}

impl std::ops::Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            runs: self.runs + other.runs,
            events: self.events + other.events,
            virtual_ms: self.virtual_ms + other.virtual_ms,
        }
    }
}

/// Plays one run.
///
/// # Errors
/// The invariant that it breaks.
pub fn play(family: &Family, seed: u64, mutation: Option<Mutation>) -> Result<Tally, Box<Failure>> {
    let variation = Variation { mutation, ..Variation::default() };
    let (network, outcome) = family.play(seed, variation.clone());
    match outcome {
        Ok(()) => {
            Ok(Tally { runs: 1, events: network.agenda.planned(), virtual_ms: network.now.millis() as u64 })
        }
        Err(violation) => {
            Err(Box::new(Failure { family: family.name, seed, mutation, violation, variation }))
        }
    }
}

/// Plays one run whatever comes of it, and writes it down.
pub fn trace(family: &Family, seed: u64, mutation: Option<Mutation>) -> Vec<String> {
    family.play(seed, Variation { mutation, traced: true, ..Variation::default() }).0.trace
}

impl Failure {
    /// Takes routers and acts away for as long as the same invariant breaks.
    #[must_use]
    pub fn shrunk(self) -> Self {
        let Ok(family) = Family::named(self.family) else { return self };
        let mut least = self;
        let whole = family.play(least.seed, least.variation.clone()).0;
        let (nodes, acts) = (whole.nodes.len(), whole.acts);
        // What was needed at first may not be once other things are gone.
        for _ in 0..2 {
            let left_out = least.variation.without_nodes.clone();
            for node in (0..nodes).rev().filter(|node| !left_out.contains(node)) {
                least.without(family, |variation| variation.without_nodes.push(node));
            }
            let left_out = least.variation.without_acts.clone();
            for act in (0..acts).filter(|act| !left_out.contains(act)) {
                least.without(family, |variation| variation.without_acts.push(act));
            }
        }
        least
    }

    fn without(&mut self, family: &Family, change: impl FnOnce(&mut Variation)) {
        let mut variation = self.variation.clone();
        change(&mut variation);
        let (network, outcome) = family.play(self.seed, variation.clone());
        let present = network.nodes.iter().filter(|node| !node.absent).count();
        if let Err(violation) = outcome
            && present >= 2
            && violation.invariant == self.violation.invariant
        {
            (self.variation, self.violation) = (variation, violation);
        }
    }

    /// The run, line by line.
    pub fn trace(&self) -> Vec<String> {
        let traced = Variation { traced: true, ..self.variation.clone() };
        Family::named(self.family).map(|family| family.play(self.seed, traced).0.trace).unwrap_or_default()
    }

    /// What was taken away.
    pub fn left_out(&self) -> (&[usize], usize) {
        (&self.variation.without_nodes, self.variation.without_acts.len())
    }

    /// The command that plays it again.
    pub fn command(&self) -> String {
        let mutation = self.mutation.map(|mutation| format!(" --mutation {mutation}")).unwrap_or_default();
        format!("cargo xtask sim --family {} --seed {}{mutation}", self.family, self.seed)
    }
}
