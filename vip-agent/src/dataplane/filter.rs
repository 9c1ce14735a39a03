//! The bitmap that rules out addresses before the VIP tables are asked, kept in step with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use aya::maps::{Array, MapData};
use vip_common::filter::{Bit, WORDS};
use vip_common::packet::ipv6::Address;

use super::DataplaneError;
use super::tables::failed;
use super::world::Maps;

/// `FILTER`: a set bit says that no VIP has this hash.
pub(super) struct Filter {
    map: Array<MapData, u64>,
    words: Vec<u64>,
    vips: BTreeSet<(u32, IpAddr)>,
    /// How many VIPs share a bit, by word and mask.
    shared: BTreeMap<(u32, u64), u32>,
}

impl Filter {
    /// Rules out every address, to begin with.
    pub(super) fn take(maps: &mut Maps) -> Result<Self, DataplaneError> {
        let mut map: Array<_, u64> = maps.take("FILTER")?;
        let words = vec![u64::MAX; WORDS as usize];
        for (index, word) in (0..).zip(&words) {
            map.set(index, word, 0).map_err(|error| failed(error, "FILTER"))?;
        }
        Ok(Self { map, words, vips: BTreeSet::new(), shared: BTreeMap::new() })
    }

    /// No longer rules out an address. To be called before it is in the tables.
    pub(super) fn admit(&mut self, ifindex: u32, address: IpAddr) -> Result<(), DataplaneError> {
        let bit = bit_of(address);
        if !self.vips.insert((ifindex, address)) {
            return Ok(());
        }
        *self.shared.entry((bit.word, bit.mask)).or_default() += 1;
        self.change(bit, |word| word & !bit.mask)
    }

    /// Rules out an address again, unless another VIP has the same bit. To be called once it has left the tables.
    pub(super) fn rule_out(&mut self, ifindex: u32, address: IpAddr) -> Result<(), DataplaneError> {
        let bit = bit_of(address);
        if !self.vips.remove(&(ifindex, address)) {
            return Ok(());
        }
        if let Some(vips) = self.shared.get_mut(&(bit.word, bit.mask)) {
            *vips -= 1;
            if *vips > 0 {
                return Ok(());
            }
        }
        self.shared.remove(&(bit.word, bit.mask));
        self.change(bit, |word| word | bit.mask)
    }

    fn change(&mut self, bit: Bit, change: impl Fn(u64) -> u64) -> Result<(), DataplaneError> {
        let Some(word) = self.words.get_mut(bit.word as usize) else { return Ok(()) };
        *word = change(*word);
        self.map.set(bit.word, *word, 0).map_err(|error| failed(error, "FILTER"))
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter").field("vips", &self.vips.len()).finish_non_exhaustive()
    }
}

fn bit_of(address: IpAddr) -> Bit {
    match address {
        IpAddr::V4(address) => Bit::of_ipv4(address.octets()),
        IpAddr::V6(address) => Bit::of_ipv6(Address::new(address.octets())),
    }
}
