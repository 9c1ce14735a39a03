//! Full NAT: both ends of a flow to a backend on another node are translated, in both directions, so that the backend needs to
//! know nothing of the VIP.
//!
//! [`step`] has its steps, which only two kinds of packets come to: those to services that have backends on other nodes, and those
//! to ports without a service of a VIP that has such services.
//!
//! A client's packet becomes one from this node to the backend (`outward.rs`), the backend's answer one from the VIP to the
//! client (`inward.rs`). Each flow has two entries ([`tables`]): one by what the client's packets say, one by what the backend's
//! say, whose key is the port that the flow has here ([`ports`]).
//!
//! Ours is the VIP's address, unless the backend's slot names another: so answers come to whoever owns the VIP, and a flow
//! survives its owner, whose entries go to the peers.
//!
//! The entry of the way back is there before the other one, and nobody's is overwritten: of two packets of a new flow at the
//! same time one makes the entries, and the other takes back what it has begun and follows them. Either entry is put back if
//! the kernel needed its memory and the other one is still in use. Entries end in user space ([`tables::is_over`]); until then a
//! flow that was silent for too long is taken up again where it was.

mod inward;
mod outward;
pub mod ports;
pub mod step;
pub mod tables;
