//! `vip-agent flows`: lists what the program has noted, off the runtime's thread.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::oneshot;
use vip_common::steering::tables::FlowState;

use super::super::Agent;
use crate::control::Answer;
use crate::dataplane::DataplaneError;
use crate::dataplane::services::{Flow, ServiceTables};
use crate::status::{FlowList, FlowStatus};

/// As many are listed at most: an answer is one line of a few MiB.
const MOST: usize = 10_000;

/// The names of what flows refer to by numbers.
struct Names {
    /// Name and VIP of services, by slot.
    services: BTreeMap<u16, (String, IpAddr)>,
    /// Backends, by slot and generation.
    backends: BTreeMap<(u32, u16), IpAddr>,
}

/// Which flows are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Which {
    pub(in super::super) vip: Option<IpAddr>,
    pub(in super::super) backend: Option<IpAddr>,
}

impl Agent {
    pub(in super::super) fn list_flows(&self, which: Which, answer: oneshot::Sender<Answer>) {
        let Some(tables) = self.services.tables.clone() else {
            let _ = answer.send(said(Ok(FlowList::default())));
            return;
        };
        let names = self.names();
        tokio::task::spawn_blocking(move || {
            let list = list(&tables, &names, which);
            // Whoever asked may have gone meanwhile.
            let _ = answer.send(said(list));
        });
    }

    fn names(&self) -> Names {
        let book = &self.services.book;
        let services = self.config.services.iter().filter_map(|service| {
            Some((book.index(service.name.as_str())?, (service.name.as_str().to_owned(), service.vip)))
        });
        let holders = book.indices().flat_map(|(name, _)| book.holders(name));
        Names {
            services: services.collect(),
            backends: holders
                .map(|holder| ((holder.slot.number.get(), holder.slot.generation), holder.address))
                .collect(),
        }
    }
}

fn said(list: Result<FlowList, DataplaneError>) -> Answer {
    match list.map(serde_json::to_value) {
        Ok(Ok(list)) => Answer::Ok(list),
        Ok(Err(error)) => Answer::Error(error.to_string()),
        Err(error) => Answer::Error(error.to_string()),
    }
}

fn list(tables: &Arc<ServiceTables>, names: &Names, which: Which) -> Result<FlowList, DataplaneError> {
    let mut list = FlowList::default();
    tables.each_flow(|flow| {
        if let Some(flow) = named(flow, names, which) {
            list.total += 1;
            if list.flows.len() < MOST {
                list.flows.push(flow);
            }
        }
    })?;
    list.flows.sort_by(|a, b| {
        let key = |flow: &FlowStatus| (flow.vip, flow.vip_port, flow.client, flow.client_port);
        key(a).cmp(&key(b))
    });
    Ok(list)
}

/// A flow in words; `None` if it is not asked for, or of a service or backend that has gone.
fn named(flow: &Flow, names: &Names, which: Which) -> Option<FlowStatus> {
    let (service, vip) = names.services.get(&flow.service)?;
    let backend = *names.backends.get(&(flow.backend, flow.generation))?;
    if which.vip.is_some_and(|wanted| wanted != *vip) || which.backend.is_some_and(|wanted| wanted != backend)
    {
        return None;
    }
    Some(FlowStatus {
        service: service.clone(),
        vip: *vip,
        vip_port: flow.vip_port,
        protocol: match flow.protocol {
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            132 => "sctp".to_owned(),
            other => other.to_string(),
        },
        client: flow.client(*vip),
        client_port: flow.client_port,
        backend,
        state: match flow.state {
            FlowState::Opening => "opening",
            FlowState::Established => "established",
            FlowState::Closing => "closing",
        }
        .to_owned(),
        idle_s: flow.idle.as_secs(),
    })
}
