//! The flows that the program has noted: counted by backend, and listed.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use vip_common::steering::tables::{Choice, FlowState, SteeredFlowKey};

use super::super::DataplaneError;
use super::super::world::map_error;
use super::entries::each;
use super::full_nat::Rest;
use super::tables::ServiceTables;
use crate::types::MonotonicTime;

/// How many flows there are that are not over, by slot and generation of their backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    flows: HashMap<(u32, u16), u64>,
    strangers: BTreeSet<IpAddr>,
}

impl FlowCounts {
    /// Clients of full NAT to whom the program knows no way, as nobody has asked for the MAC of their next hop.
    pub const fn strangers(&self) -> &BTreeSet<IpAddr> {
        &self.strangers
    }

    /// Of one backend.
    pub fn of(&self, slot: super::BackendSlot) -> u64 {
        self.flows.get(&(slot.number.get(), slot.generation)).copied().unwrap_or_default()
    }
}

/// A flow that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Its service's slot.
    pub service: u16,
    /// Transport protocol, by its number in IP headers.
    pub protocol: u8,
    /// As in the table: an IPv4 address stands in the first four bytes.
    pub client: [u8; 16],
    /// The client's port.
    pub client_port: u16,
    /// The VIP's port.
    pub vip_port: u16,
    /// Slot of its backend.
    pub backend: u32,
    /// Which of that slot's holders.
    pub generation: u16,
    /// How far it is.
    pub state: FlowState,
    /// For how long there was no packet, to about a second.
    pub idle: Duration,
}

impl Flow {
    /// The client's address, `as_vip` being one of the service's family.
    pub fn client(&self, as_vip: IpAddr) -> IpAddr {
        super::wanted::address(self.client, super::wanted::family(as_vip))
    }

    /// `None` if it is over.
    fn of(key: &SteeredFlowKey, choice: &Choice, now: MonotonicTime) -> Option<Self> {
        let (state, idle) = (FlowState::of(choice.state), now.0.saturating_sub(choice.seen));
        (idle < state.timeout(key.protocol)).then_some(Self {
            service: key.service,
            protocol: key.protocol,
            client: key.client,
            client_port: u16::from_be_bytes(key.client_port),
            vip_port: u16::from_be_bytes(key.vip_port),
            backend: choice.backend,
            generation: choice.generation,
            state,
            idle: Duration::from_nanos(idle),
        })
    }
}

impl ServiceTables {
    /// Counts all flows, and removes those of full NAT that are over. Takes milliseconds, and tens of them where there are hundreds
    /// of thousands.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn count_flows(&self) -> Result<FlowCounts, DataplaneError> {
        let mut counts = FlowCounts::default();
        let FlowCounts { flows, strangers } = &mut counts;
        let mut rest = self.visit(|flow| *flows.entry((flow.backend, flow.generation)).or_default() += 1)?;
        self.sweep(&mut rest).map_err(map_error("NAT_FLOWS"))?;
        *strangers = rest.strangers;
        Ok(counts)
    }

    /// Reads all flows. Those that come and go meanwhile may be missing.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn each_flow(&self, mut visit: impl FnMut(&Flow)) -> Result<(), DataplaneError> {
        self.visit(&mut visit).map(drop)
    }

    fn visit(&self, mut visit: impl FnMut(&Flow)) -> Result<Rest, DataplaneError> {
        self.read_flows(&mut visit).map_err(map_error("FLOWS"))?;
        self.read_nat_flows(visit).map_err(map_error("NAT_FLOWS"))
    }

    fn read_flows(&self, visit: &mut impl FnMut(&Flow)) -> io::Result<()> {
        let now = MonotonicTime::now();
        each(self.flows.as_fd(), |key: &SteeredFlowKey, choice: &Choice| {
            if let Some(flow) = Flow::of(key, choice, now) {
                visit(&flow);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    #[test]
    fn a_flow_is_over_when_it_was_idle_for_as_long_as_its_protocol_and_state_allow() {
        let (mut key, mut choice) = (SteeredFlowKey::zeroed(), Choice::zeroed());
        key.protocol = 6;
        choice.seen = 1_000_000_000;
        let after = |key: &SteeredFlowKey, choice: &Choice, seconds: u64| {
            Flow::of(key, choice, MonotonicTime((1 + seconds) * 1_000_000_000))
                .map(|flow| flow.idle.as_secs())
        };
        assert_eq!(after(&key, &choice, 239), Some(239));
        assert_eq!(after(&key, &choice, 240), None);
        choice.state = FlowState::Established as u8;
        assert_eq!(after(&key, &choice, 7439), Some(7439));
        key.protocol = 17;
        assert_eq!(after(&key, &choice, 300), None);
        // Noted on another CPU a moment after the clock was read here.
        assert_eq!(Flow::of(&key, &choice, MonotonicTime(5)).map(|flow| flow.idle), Some(Duration::ZERO));
    }
}
