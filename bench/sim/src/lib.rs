//! Many routers in simulated networks: production's machine and rules under virtual clocks, by seed.
//!
//! A run is a function of family, seed and mutation. `scenario` is what happens, `network` where, `agent` production's rules over
//! it, `watch` what must hold, `run` plays, shrinks and replays. docs/simulation.md has the bounds.

mod act;
mod agenda;
mod agent;
mod mutation;
mod network;
mod node;
mod random;
mod run;
mod scenario;
mod setup;
#[cfg(test)]
mod tests;
mod time;
mod watch;

pub use mutation::Mutation;
pub use run::{Failure, Tally, play, trace};
pub use scenario::{FAMILIES, Family};
pub use watch::{Invariant, Violation};
