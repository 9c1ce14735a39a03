//! Firewalls (nftables) in tables that are the lab's: a node's own, and losses at the switch.

use anyhow::Result;

use crate::Switch;
use crate::node::Node;

/// What a node's own firewall does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firewall {
    /// Refuses the node's own adverts at output: its sends fail with EPERM.
    MuteAdverts,
    /// The same for adverts over IPv4 only.
    MuteIpv4Adverts,
    /// The same for adverts over IPv6 only.
    MuteIpv6Adverts,
    /// Drops whatever arrives (adverts too) but neighbour discovery and what belongs to the node's own connections.
    DropInput,
}

impl Firewall {
    fn chain(self) -> &'static str {
        match self {
            Self::MuteAdverts => "type filter hook output priority 0\nmeta l4proto 112 drop",
            Self::MuteIpv4Adverts => {
                "type filter hook output priority 0\nmeta nfproto ipv4 meta l4proto 112 drop"
            }
            Self::MuteIpv6Adverts => {
                "type filter hook output priority 0\nmeta nfproto ipv6 meta l4proto 112 drop"
            }
            Self::DropInput => {
                "type filter hook input priority 0; policy drop\niif lo accept\nct state established,related accept\n\
                 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
            }
        }
    }
}

impl Node {
    /// Sets the node's firewall up, instead of an earlier one.
    ///
    /// # Errors
    /// What `nft` said.
    pub fn set_firewall(&self, firewall: Firewall) -> Result<()> {
        self.nft(&replace_table("inet", firewall.chain()))
    }

    /// Takes the node's firewall away.
    ///
    /// # Errors
    /// What `nft` said.
    pub fn clear_firewall(&self) -> Result<()> {
        self.nft("table inet lab\ndelete table inet lab\n")
    }

    /// Applies an nftables ruleset in the node.
    ///
    /// # Errors
    /// What `nft` said.
    pub fn nft(&self, ruleset: &str) -> Result<()> {
        self.command("nft").args(["-f", "-"]).feed(ruleset)
    }
}

impl Switch {
    /// Drops this many percent (0-100) of the adverts that `node` sends, at random, on their way into the switch; instead of
    /// earlier losses of any node. A [`crate::wire::Wire`] sees them nevertheless: it reads ahead of the loss.
    ///
    /// # Errors
    /// What `nft` said.
    pub fn lose_adverts(&self, node: &Node, percent: u8) -> Result<()> {
        let chance = match percent {
            // nft refuses comparisons that are always true or never.
            100.. => String::new(),
            0 => return self.node().nft("table netdev lab\ndelete table netdev lab\n"),
            percent => format!("numgen random mod 100 < {percent}"),
        };
        let rule = format!(
            "type filter hook ingress device {} priority 0\nmeta l4proto 112 {chance} drop",
            node.name()
        );
        self.node().nft(&replace_table("netdev", &rule))
    }
}

/// Declared first, so that there is one to delete.
fn replace_table(family: &str, chain: &str) -> String {
    format!(
        "table {family} lab\ndelete table {family} lab\ntable {family} lab {{\nchain lab {{\n{chain}\n}}\n}}\n"
    )
}
