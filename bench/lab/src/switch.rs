//! The switch: a namespace with a bridge and one port per node, named like the node.

use anyhow::{Context, Result};

use crate::node::{Identity, Node};

/// A bridge without spanning tree; multicast snooping off unless asked for.
#[derive(Debug)]
pub struct Switch {
    node: Node,
}

impl Switch {
    pub(crate) fn start(identity: Identity, multicast_snooping: bool) -> Result<Self> {
        let node = Node::start(identity, None)?;
        // The switch has no addresses and says nothing of its own.
        node.set_sysctl("net.ipv6.conf.all.disable_ipv6", 1)?;
        node.set_sysctl("net.ipv6.conf.default.disable_ipv6", 1)?;
        let (mac, snooping) = (node.mac(), u8::from(multicast_snooping));
        node.ip(&format!(
            "link add br0 address {mac} type bridge stp_state 0 forward_delay 0 mcast_snooping {snooping}"
        ))?;
        node.ip("link set br0 up")?;
        Ok(Self { node })
    }

    /// Plugs `eth0` of `node` into a new port.
    pub(crate) fn plug(&self, node: &Node, checksum_offload: bool) -> Result<()> {
        let (port, mac, netns) = (node.name(), node.mac(), node.netns_path());
        self.node.ip(&format!(
            "link add {port} type veth peer name eth0 address {mac} netns {}",
            netns.display()
        ))?;
        if !checksum_offload {
            for (place, interface) in [(&self.node, port), (node, "eth0")] {
                place.command("ethtool").args(["-K", interface, "tx", "off"]).read()?;
            }
        }
        self.node.ip(&format!("link set {port} master br0 up")).map(drop)
    }

    /// The namespace that holds the bridge `br0` and the ports.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Pulls the cable of `node` out: it loses its carrier. Or puts it back.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn set_cable(&self, node: &Node, plugged: bool) -> Result<()> {
        let state = if plugged { "up" } else { "down" };
        self.node.ip(&format!("link set {} {state}", node.name())).map(drop)
    }

    /// Stops forwarding at the port of `node`, both ways, while it keeps its carrier: a partition that the node cannot see.
    /// Or starts it again.
    ///
    /// # Errors
    /// What `bridge` said; the cable is out.
    pub fn set_forwarding(&self, node: &Node, forwarding: bool) -> Result<()> {
        // Numbers of BR_STATE_DISABLED and BR_STATE_FORWARDING (linux/if_bridge.h).
        let state = if forwarding { "3" } else { "0" };
        let command = self.node.command("bridge").args(["link", "set", "dev", node.name(), "state", state]);
        command.read().map(drop).with_context(|| format!("set the port of {} to state {state}", node.name()))
    }
}
