//! Flows for those who may own the VIPs next: an owner tells its peers which flows go to which backends, and by which port of
//! full NAT, so that they go there still when it is dead.
//!
//! Authenticated datagrams to each peer ([`codec`]), with the keys and the HMAC of signed adverts. Nothing depends on what time
//! it is on another host: a peer believes whoever answers a number that it has just drawn ([`session`]), and ages of flows go
//! as spans. Each change of a flow has a number that grows ([`changes`]); a peer says up to which one it has all, and hears of
//! what came later, at a bounded rate: all flows at first, and changes from then on. It takes what it can check, and only of
//! VIPs that it does not own ([`table`]).
//!
//! What one node says and hears is a pure function of datagrams and times ([`exchange`]); [`thread`] carries it over UDP, on a
//! thread of its own, as reading hundreds of thousands of flows takes milliseconds.

pub mod changes;
pub mod codec;
pub mod exchange;
pub mod session;
pub mod table;
pub mod thread;

#[cfg(test)]
mod tests;
