//! Tunnels that end at this node: it is a backend of a service of mode `tunnel`, by an address of its own, and has the VIP for good.

use std::collections::BTreeSet;

use super::super::Agent;
use crate::config::{LocalAddress, ServiceMode};
use crate::dataplane::services::TunnelEnd;
use crate::errors::in_full;

/// What stands in the program's table, once it was written.
#[derive(Debug, Default)]
pub(super) struct Ends {
    written: Option<BTreeSet<TunnelEnd>>,
    failure: Option<String>,
}

impl Agent {
    /// Has the program take out of tunnels what is for VIPs that this node serves, and nothing else. Once a second, too: addresses
    /// come and go.
    pub(super) fn keep_tunnel_ends(&mut self) {
        if self.services.tables.is_none() || self.is_being_succeeded().is_some() {
            return;
        }
        let wanted = self.wanted_tunnel_ends();
        if self.services.ends.written.as_ref() == Some(&wanted) {
            return;
        }
        let Some(tables) = &self.services.tables else { return };
        let failure = tables.set_tunnel_ends(&wanted).err().map(|error| in_full(&error.into()));
        let ends = &mut self.services.ends;
        match &failure {
            None => {
                for TunnelEnd { end, vip } in &wanted {
                    tracing::info!(%end, %vip, "packets to the VIP come out of tunnels to this address");
                }
                ends.written = Some(wanted);
            }
            Some(error) if ends.failure != failure => {
                tracing::error!("nothing comes out of tunnels: {error}");
            }
            Some(_) => {}
        }
        ends.failure = failure;
    }

    fn wanted_tunnel_ends(&self) -> BTreeSet<TunnelEnd> {
        let always = |vip| {
            let mut carriers = self.instances.iter().filter(|managed| managed.vips().contains(&vip));
            carriers.any(|managed| managed.config.stands_on_lo() == LocalAddress::Always)
        };
        let tunnels =
            self.config.services.iter().filter(|service| matches!(service.mode, ServiceMode::Tunnel));
        tunnels
            .filter(|service| always(service.vip))
            .flat_map(|service| service.backends.iter().map(|backend| (backend.address, service.vip)))
            .filter(|(end, _)| self.links.iter().any(|link| link.has_address(*end)))
            .map(|(end, vip)| TunnelEnd { end, vip })
            .collect()
    }
}
