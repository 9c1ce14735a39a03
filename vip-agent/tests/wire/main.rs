//! VRRP on the wire: codec, receive checks and announcements against frames that others built.

mod announce;
mod codec;
mod fixture;
mod fuzz;
mod golden;
mod model;
mod properties;
mod receive;
mod trailer;
mod version_2;
