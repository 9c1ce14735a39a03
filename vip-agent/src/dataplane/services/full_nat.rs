//! The flows of full NAT: read from both their entries, and removed when they are over, which the program never does.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use vip_common::steering::full_nat::tables::{NatFlow, NatKey, NatReturn, is_over, life};
use vip_common::steering::tables::SteeredFlowKey;

use super::entries::{each, look_up, remove};
use super::flows::Flow;
use super::tables::ServiceTables;
use super::wanted::address;
use crate::types::MonotonicTime;

/// Clients whose way back is asked for at once.
const MOST_STRANGERS: usize = 1024;

/// How long after the last packet of a flow its client may wait for an answer.
const WAITING: Duration = Duration::from_secs(30);

/// What a look at all flows of full NAT found besides those that live.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Flows that are over.
    over: Vec<(SteeredFlowKey, NatKey)>,
    /// Ways back whose flow the kernel has evicted, and which are over.
    orphans: Vec<NatKey>,
    /// Clients to whom the program knows no way: somebody has to ask for the MAC of their next hop.
    pub(super) strangers: BTreeSet<IpAddr>,
}

impl ServiceTables {
    /// Shows the flows that are not over.
    pub(super) fn read_nat_flows(&self, mut visit: impl FnMut(&Flow)) -> io::Result<Rest> {
        let (mut rest, mut failure) = (Rest::default(), None);
        let now = MonotonicTime::now();
        each(self.nat_flows.as_fd(), |key: &SteeredFlowKey, flow: &NatFlow| {
            let back = match look_up::<_, NatReturn>(self.nat_returns.as_fd(), &flow.way) {
                Ok(back) => back.filter(|back| back.client == *key),
                Err(error) => {
                    failure = Some(error);
                    return;
                }
            };
            if is_over(Some(flow), back.as_ref(), key.protocol, now.0) {
                rest.over.push((*key, flow.way));
                return;
            }
            let shown = flow_of(key, flow, back.as_ref(), now);
            let waits = back.is_some_and(|back| back.hop.ifindex == 0) && shown.idle < WAITING;
            if waits && rest.strangers.len() < MOST_STRANGERS {
                rest.strangers.insert(address(key.client, flow.way.family));
            }
            visit(&shown);
        })?;
        failure.map_or(Ok(rest), Err)
    }

    /// Removes what [`Self::read_nat_flows`] found to be over, and ways back without a flow.
    ///
    /// What is taken up again in this very moment loses its entries and gets new ones, maybe by another port: after hours of
    /// silence, of which its client could not know either whether they were too many.
    pub(super) fn sweep(&self, rest: &mut Rest) -> io::Result<()> {
        let now = MonotonicTime::now();
        let (flows, returns) = (self.nat_flows.as_fd(), self.nat_returns.as_fd());
        for (key, way) in rest.over.drain(..) {
            remove(flows, &key)?;
            let back = look_up::<_, NatReturn>(returns, &way)?;
            // Its port may be another flow's by now.
            if back.is_some_and(|back| back.client == key && is_over(None, Some(&back), way.protocol, now.0))
            {
                remove(returns, &way)?;
            }
        }
        each(returns, |way: &NatKey, back: &NatReturn| {
            if is_over(None, Some(back), way.protocol, now.0) {
                rest.orphans.push(*way);
            }
        })?;
        for way in rest.orphans.drain(..) {
            let Some(back) = look_up::<_, NatReturn>(returns, &way)? else { continue };
            let flow = look_up::<_, NatFlow>(flows, &back.client)?.filter(|flow| flow.way == way);
            if is_over(flow.as_ref(), Some(&back), way.protocol, now.0) {
                remove(returns, &way)?;
            }
        }
        Ok(())
    }
}

fn flow_of(key: &SteeredFlowKey, flow: &NatFlow, back: Option<&NatReturn>, now: MonotonicTime) -> Flow {
    let (state, seen) = life(Some(flow), back);
    Flow {
        service: key.service,
        protocol: key.protocol,
        client: key.client,
        client_port: u16::from_be_bytes(key.client_port),
        vip_port: u16::from_be_bytes(key.vip_port),
        backend: flow.backend,
        generation: flow.generation,
        state,
        idle: Duration::from_nanos(now.0.saturating_sub(seen)),
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;
    use vip_common::steering::tables::FlowState;

    use super::*;

    #[test]
    fn a_flow_is_idle_since_the_last_packet_of_either_end_and_closing_as_soon_as_one_of_them_is() {
        let flow = NatFlow { seen: 3_000_000_000, state: FlowState::Established as u8, ..NatFlow::zeroed() };
        let back = NatReturn { seen: 7_000_000_000, state: FlowState::Closing as u8, ..NatReturn::zeroed() };
        let at = MonotonicTime(9_000_000_000);
        let key = SteeredFlowKey::zeroed();
        let both = flow_of(&key, &flow, Some(&back), at);
        assert_eq!((both.idle.as_secs(), both.state), (2, FlowState::Closing));
        let alone = flow_of(&key, &flow, None, at);
        assert_eq!((alone.idle.as_secs(), alone.state), (6, FlowState::Established));
    }
}
