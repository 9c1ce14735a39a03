//! VRRP: codec, state machine, sockets and the driver thread that joins them.

pub mod auth;
pub(crate) mod checksum;
pub mod codec;
pub mod conduct;
pub mod detect;
pub mod discard;
pub mod driver;
mod frame;
pub mod machine;
pub mod prepared;
pub mod receive;
pub mod socket;
pub mod sync_group;
pub mod trailer;
