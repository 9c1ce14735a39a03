//! How a virtual router is set up, for keepalived, for us, and for the router that it hears.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};
use vip_lab::{Mac, Node};

use crate::forgery::{Forgery, Seal};

/// Eight bytes, as on the wire.
pub(crate) const PASSWORD: &str = "secret12";
/// Of the router under test.
pub(crate) const PRIORITY: u8 = 200;
/// Of the router that it hears.
pub(crate) const HIGHER: u8 = 250;
/// The other router: of a greater address than the one under test.
pub(crate) const OTHER: Station = Station { host: 99, greater: true };
/// One that was not heard before, and that is no unicast peer.
pub(crate) const NEWCOMER: Station = Station { host: 98, greater: true };
/// One of a lower address than the router under test, which is node 2.
pub(crate) const LOWER: Station = Station { host: 1, greater: false };

/// What a virtual router speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    Multicast4,
    Unicast4,
    Multicast6,
    Unicast6,
    /// Version 2 without a password.
    Old,
    /// Version 2 with [`PASSWORD`].
    OldWithPassword,
}

/// A sender of adverts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Station {
    host: u8,
    greater: bool,
}

/// A virtual router under test.
#[derive(Clone, Copy)]
pub(crate) struct Router<'a> {
    pub(crate) name: &'a str,
    pub(crate) vrid: u8,
    pub(crate) setting: Setting,
    /// VIPs of IPv4 routers. Those of IPv6 have a link-local one and another.
    pub(crate) vips: u8,
}

// === impl Setting ===

impl Setting {
    pub(crate) const ALL: [Self; 6] = [
        Self::Multicast4,
        Self::Unicast4,
        Self::Multicast6,
        Self::Unicast6,
        Self::Old,
        Self::OldWithPassword,
    ];

    /// A heading.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Multicast4 => "Version 3, IPv4, multicast",
            Self::Unicast4 => "Version 3, IPv4, unicast",
            Self::Multicast6 => "Version 3, IPv6, multicast",
            Self::Unicast6 => "Version 3, IPv6, unicast",
            Self::Old => "Version 2 without authentication",
            Self::OldWithPassword => "Version 2 with a password",
        }
    }

    pub(crate) fn is_ipv6(self) -> bool {
        matches!(self, Self::Multicast6 | Self::Unicast6)
    }

    fn is_unicast(self) -> bool {
        matches!(self, Self::Unicast4 | Self::Unicast6)
    }

    fn is_old(self) -> bool {
        matches!(self, Self::Old | Self::OldWithPassword)
    }
}

// === impl Station ===

impl Station {
    pub(crate) fn mac(self) -> Mac {
        Mac([2, 0, 0, 0, 0, self.host])
    }

    pub(crate) fn ipv4(self) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, self.host).into()
    }

    /// An address of unicast: those of stations are greater than node 2's by their host numbers.
    pub(crate) fn ipv6(self) -> IpAddr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, self.host.into()).into()
    }

    /// A node's own is fe80::ff:fe00:N.
    pub(crate) fn link_local(self) -> IpAddr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, self.greater.into(), 0, 0, self.host.into()).into()
    }

    /// The address that adverts of this setting come from.
    pub(crate) fn address(self, setting: Setting) -> IpAddr {
        match setting {
            Setting::Multicast6 => self.link_local(),
            Setting::Unicast6 => self.ipv6(),
            _ => self.ipv4(),
        }
    }
}

// === impl Router ===

impl Router<'_> {
    pub(crate) fn vips(&self) -> Vec<IpAddr> {
        if self.setting.is_ipv6() {
            let host = u16::from(self.vrid);
            let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 5, host);
            return vec![link_local.into(), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, host).into()];
        }
        (1..=self.vips).map(|subnet| Ipv4Addr::new(10, 0, subnet, self.vrid).into()).collect()
    }

    /// As an instance of ours.
    pub(crate) fn ours(&self, node: &Node, strict: bool) -> Value {
        let vips: Vec<String> = self.vips().iter().map(ToString::to_string).collect();
        let mut instance = json!({
            "name": self.name, "virtual_router_id": self.vrid, "interface": "eth0", "advert_interval": "1s", "priority": PRIORITY,
            "vips": vips, "strict": strict, "local_address": "never", "grace": "0s",
        });
        if self.setting.is_unicast() {
            let source = own_address(node, self.setting);
            instance["unicast"] = json!({ "source": source, "peers": [OTHER.address(self.setting)] });
        }
        if self.setting.is_old() {
            instance["version"] = json!(2);
        }
        if self.setting == Setting::OldWithPassword {
            instance["auth"] = json!({ "password": PASSWORD });
        }
        instance
    }

    /// As a `vrrp_instance` of keepalived, with one more line.
    pub(crate) fn theirs(&self, node: &Node, line: &str) -> String {
        let Self { name, vrid, setting, .. } = *self;
        let version = if setting.is_old() { 2 } else { 3 };
        let mut text = format!(
            "vrrp_instance {name} {{\n    version {version}\n    state BACKUP\n    interface eth0\n    \
             virtual_router_id {vrid}\n    priority {PRIORITY}\n    advert_int 1\n    {line}\n"
        );
        if setting.is_unicast() {
            let (source, peer) = (own_address(node, setting), OTHER.address(setting));
            text.push_str(&format!("    unicast_src_ip {source}\n    unicast_peer {{\n{peer}\n    }}\n"));
        }
        if setting == Setting::OldWithPassword {
            text.push_str(&format!(
                "    authentication {{\n        auth_type PASS\n        auth_pass {PASSWORD}\n    }}\n"
            ));
        }
        text.push_str("    virtual_ipaddress {\n");
        for vip in self.vips() {
            text.push_str(&format!("        {vip} dev eth0\n"));
        }
        text.push_str("    }\n}\n");
        text
    }

    /// What another router with a higher priority sends.
    pub(crate) fn advert(&self, node: &Node, sender: Station) -> Forgery {
        let (setting, vips) = (self.setting, self.vips());
        let [version_type, fifth, sixth] = if setting.is_old() {
            [0x21, u8::from(setting == Setting::OldWithPassword), 1]
        } else {
            [0x31, 0, 100]
        };
        let count = u8::try_from(vips.len()).expect("few");
        let mut message = vec![version_type, self.vrid, HIGHER, count, fifth, sixth, 0, 0];
        for vip in vips {
            match vip {
                IpAddr::V4(vip) => message.extend(vip.octets()),
                IpAddr::V6(vip) => message.extend(vip.octets()),
            }
        }
        match setting {
            Setting::Old => message.extend([0; 8]),
            Setting::OldWithPassword => message.extend(PASSWORD.as_bytes()),
            _ => {}
        }
        Forgery {
            source_mac: sender.mac(),
            destination_mac: None,
            source: sender.address(setting),
            destination: if setting.is_unicast() { own_address(node, setting) } else { group(setting) },
            hop_limit: 255,
            traffic_class: 0xc0,
            options: Vec::new(),
            fragment: 0,
            ip_checksum_wrong: false,
            message,
            seal: if setting.is_old() { Seal::Message } else { Seal::Pseudo },
            padding: 0,
            receiver: node.mac(),
        }
    }
}

/// Where multicast adverts go.
pub(crate) fn group(setting: Setting) -> IpAddr {
    if setting.is_ipv6() {
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12).into()
    } else {
        Ipv4Addr::new(224, 0, 0, 18).into()
    }
}

fn own_address(node: &Node, setting: Setting) -> IpAddr {
    if setting.is_ipv6() { node.ipv6().into() } else { node.ipv4().into() }
}
