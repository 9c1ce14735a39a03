//! VRRP: codec, state machine, sockets and the driver thread that joins them.

pub mod machine;
