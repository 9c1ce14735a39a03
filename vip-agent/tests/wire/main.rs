//! VRRP on the wire: codec, receive checks and announcements against frames that others built.

mod announce;
mod codec;
mod fixture;
mod golden;
mod properties;
mod receive;
mod version_2;
