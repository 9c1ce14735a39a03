//! The chart by Helm's own engine: linted, rendered, and looked at for what the objects mean. No cluster.

mod access;
mod defaults;
mod everything;
mod manifests;
mod predecessor;
mod refused;
mod support;
