//! Gathers what preflight judges: from the kernel, from files, from the wire. Leaves nothing behind.

pub(super) mod host;
pub(super) mod listening;
pub(super) mod network;
pub(super) mod places;
