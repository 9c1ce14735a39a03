//! Our own kinds of objects, `viplane.dev/v1alpha1`: VipPool and VirtualIP as the API server has them, and what their texts mean.
//!
//! A crate of its own, so that `cargo xtask crds` makes their definitions without an HTTP client, and `vip-kube` reads them by the same
//! types. The types of an object hold texts as they are written, since one text that cannot be understood must not hide the other
//! objects of its list; what is computed with is [`AddressRange`], which holds nothing else than it says.

mod condition;
#[expect(clippy::duplicated_attributes, reason = "columns are described by the same words")]
mod pool;
mod range;
mod schema;
#[expect(clippy::duplicated_attributes, reason = "columns are described by the same words")]
mod virtual_ip;

pub use condition::{Condition, Truth};
pub use pool::{AddressOwner, Assignment, HolderKind, VipPool, VipPoolSpec, VipPoolStatus};
pub use range::{AddressRange, RangeError, is_buggy};
pub use virtual_ip::{LocalAddress, VirtualIP, VirtualIPSpec, VirtualIPStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

/// Keeps a pool until its last address is released, and a VirtualIP until its own one is.
pub const FINALIZER: &str = "viplane.dev/addresses";

/// The definitions of all kinds, for an API server of version 1.16 or later.
pub fn definitions() -> [CustomResourceDefinition; 2] {
    [VipPool::crd(), VirtualIP::crd()]
}

#[cfg(test)]
mod tests;
