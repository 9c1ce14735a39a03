//! `virtual_ipaddress` and `virtual_ipaddress_excluded`.

use super::instance::Key;
use super::notes::Notes;
use super::tree::Statement;
use crate::config::{InterfaceName, VipAddress, vip};

/// An address as written.
#[derive(Debug)]
pub(super) struct Vip<'a> {
    pub(super) address: VipAddress,
    /// Of `virtual_ipaddress_excluded`: not in adverts.
    pub(super) excluded: bool,
    /// `dev`.
    pub(super) interface: Option<InterfaceName>,
    pub(super) line: &'a Statement,
    /// What keepalived says about it and viplane does not.
    pub(super) options: bool,
}

/// Reads a block; one address per line.
pub(super) fn read<'a>(
    block: &'a Statement,
    excluded: bool,
    vips: &mut Vec<Vip<'a>>,
    notes: &mut Notes<Key>,
) {
    for line in block.statements() {
        let address = match vip(line.keyword()).or_else(|error| without_prefix(line.keyword()).ok_or(error)) {
            Ok(address) => address,
            Err(error) => {
                notes.add(Key::Vips, line, format_args!("{error}: it is left out"));
                continue;
            }
        };
        let (mut interface, mut options) = (None, false);
        let mut words = line.arguments().iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "dev" => match InterfaceName::new(words.next().map_or("", String::as_str)) {
                    Ok(name) => interface = Some(name),
                    Err(error) => notes.add(Key::Vips, line, error),
                },
                _ => options = true,
            }
        }
        vips.push(Vip { address, excluded, interface, line, options });
    }
}

/// A prefix length that viplane refuses (the address is its subnet's first or last) says nothing that it needs.
fn without_prefix(text: &str) -> Option<VipAddress> {
    let (address, prefix) = text.split_once('/')?;
    let prefix: u8 = prefix.parse().ok()?;
    let vip = vip(address).ok()?;
    let longest = if vip.address.is_ipv4() { 32 } else { 128 };
    (prefix <= longest).then_some(vip)
}
