//! The configuration file: schema, validation with positions, difference.

pub mod duration;
mod interface;
mod model;

pub use interface::{
    InterfaceName, InterfacePattern, InterfaceSelector, LinkView, ResolveError, in_subnet_of, resolve,
};
pub use model::{
    Announce, Config, Instance, InstanceName, LocalAddress, Log, LogFormat, LogLevel, Unicast, VipAddress,
    XdpModeChoice, control_socket,
};
