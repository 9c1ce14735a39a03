//! The socket layer against the running kernel: two network namespaces joined by a veth pair. Needs root.

mod allocation;
mod announcing;
mod fixture;
mod filtering;
mod receiving;
mod refusals;
mod sending;
