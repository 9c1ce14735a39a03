//! The socket layer against the running kernel: two network namespaces joined by a veth pair. Needs root.

mod allocation;
mod announcing;
mod batches;
mod filtering;
mod fixture;
mod receiving;
mod refusals;
mod sending;
