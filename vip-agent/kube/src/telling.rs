//! What the agent is told: a document, or by which backends what is wanted now differs from the last one. Pure.
//!
//! A document takes the agent's checks of a whole configuration, which for a thousand services is too long for the change that comes most
//! often and is to be heard soonest: an endpoint more or less.

use std::collections::BTreeMap;
use std::sync::Arc;

use vip_kube_protocol::{Backend, Backends, Document, LineError, Telling};

use crate::follow::Known;
use crate::model::{Desired, Service};

/// Services that may differ from the last document before there is another: so many, and this part of all.
const FEW: usize = 64;
const PART: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Teller {
    /// The last document's number.
    number: u64,
    /// What it was, and the revision of the order that it followed from.
    told: Option<(u64, Arc<Desired>)>,
}

impl Teller {
    /// What to say of what is known.
    pub(super) fn telling(&mut self, known: &Known) -> Result<Telling, LineError> {
        let Some(desired) = &known.desired else { return Ok(Telling::Nothing) };
        let same_order = self.told.as_ref().filter(|(revision, _)| *revision == known.revision);
        if let Some(services) = same_order.and_then(|(_, told)| differing(told, desired)) {
            return Ok(Telling::Backends(Backends { of: self.number, services }));
        }
        self.number += 1;
        self.told = Some((known.revision, Arc::clone(desired)));
        Ok(Telling::Document(Document {
            number: self.number,
            instances: serde_json::to_value(&desired.instances)?,
            services: serde_json::to_value(&desired.steered)?,
        }))
    }
}

/// The services whose backends are other ones; `None`: something else differs, or too many do.
fn differing(told: &Desired, desired: &Desired) -> Option<BTreeMap<String, Vec<Backend>>> {
    if told.instances != desired.instances || told.steered.len() != desired.steered.len() {
        return None;
    }
    let most = FEW.max(told.steered.len() / PART);
    let mut services = BTreeMap::new();
    for (former, service) in told.steered.iter().zip(&desired.steered) {
        if !is_same_but_for_backends(former, service) {
            return None;
        }
        if former.backends != service.backends {
            services.insert(service.name.clone(), service.backends.clone());
            if services.len() > most {
                return None;
            }
        }
    }
    Some(services)
}

fn is_same_but_for_backends(former: &Service, service: &Service) -> bool {
    // Destructured, so that a new field cannot be forgotten here.
    let Service {
        name,
        vip,
        ports,
        mode,
        proxy_protocol,
        affinity,
        affinity_timeout,
        source_ranges,
        backends: _,
    } = former;
    *name == service.name
        && *vip == service.vip
        && *ports == service.ports
        && *mode == service.mode
        && *proxy_protocol == service.proxy_protocol
        && *affinity == service.affinity
        && *affinity_timeout == service.affinity_timeout
        && *source_ranges == service.source_ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Mode, Protocol, ServicePort};

    fn service(number: u16, backends: &[u8]) -> Service {
        let [high, low] = number.to_be_bytes();
        Service {
            name: format!("kube-default.s{number}-10.1.{high}.{low}"),
            vip: [10, 1, high, low].into(),
            ports: vec![ServicePort { port: 80, target: None, protocol: Protocol::Tcp }],
            mode: Mode::Nat,
            proxy_protocol: None,
            affinity: None,
            affinity_timeout: None,
            source_ranges: Vec::new(),
            backends: backends
                .iter()
                .map(|n| Backend { address: [10, 2, 0, *n].into(), weight: 1 })
                .collect(),
        }
    }

    fn known(revision: u64, services: Vec<Service>) -> Known {
        let desired = Desired { steered: services, ..Desired::default() };
        Known { revision, desired: Some(Arc::new(desired)), troubles: [].into() }
    }

    /// `document NUMBER`, or the services whose backends changed since one.
    fn said(teller: &mut Teller, known: &Known) -> String {
        match teller.telling(known).unwrap() {
            Telling::Nothing => "nothing".to_owned(),
            Telling::Document(document) => format!("document {}", document.number),
            Telling::Backends(Backends { of, services }) => {
                let names: Vec<String> = services.into_keys().collect();
                format!("of {of}: {}", names.join(" "))
            }
        }
    }

    #[test]
    fn other_backends_are_told_alone_and_always_as_they_differ_from_the_document() {
        let mut teller = Teller::default();
        assert_eq!(said(&mut teller, &known(1, vec![service(1, &[1]), service(2, &[1])])), "document 1");
        let (first, second) = (
            known(1, vec![service(1, &[1, 2]), service(2, &[1])]),
            known(1, vec![service(1, &[1, 2]), service(2, &[])]),
        );
        assert_eq!(said(&mut teller, &first), "of 1: kube-default.s1-10.1.0.1");
        assert_eq!(said(&mut teller, &second), "of 1: kube-default.s1-10.1.0.1 kube-default.s2-10.1.0.2");
        assert_eq!(said(&mut teller, &known(1, vec![service(1, &[1]), service(2, &[1])])), "of 1: ");
    }

    #[test]
    fn whatever_else_differs_makes_another_document() {
        let mut teller = Teller::default();
        assert_eq!(said(&mut teller, &known(1, vec![service(1, &[1])])), "document 1");
        assert_eq!(said(&mut teller, &known(2, vec![service(1, &[1])])), "document 2", "another order");
        assert_eq!(
            said(&mut teller, &known(2, vec![service(1, &[1]), service(2, &[])])),
            "document 3",
            "one more"
        );
        assert_eq!(
            said(&mut teller, &known(2, vec![service(2, &[]), service(1, &[1])])),
            "document 4",
            "an order"
        );
        let proxied = Service { mode: Mode::Proxy, ..service(2, &[]) };
        assert_eq!(said(&mut teller, &known(2, vec![proxied, service(1, &[1])])), "document 5", "a mode");
        let nothing = Known { desired: None, ..known(2, Vec::new()) };
        assert_eq!(said(&mut teller, &nothing), "nothing");
        assert_eq!(said(&mut teller, &known(2, vec![service(1, &[1])])), "document 6");
    }

    #[test]
    fn many_changes_make_another_document() {
        let mut teller = Teller::default();
        let all =
            |changed: u16| (0..1000).map(|n| service(n, if n < changed { &[2] } else { &[1] })).collect();
        assert_eq!(said(&mut teller, &known(1, all(0))), "document 1");
        assert!(said(&mut teller, &known(1, all(125))).starts_with("of 1: "));
        assert_eq!(said(&mut teller, &known(1, all(126))), "document 2");
        assert_eq!(said(&mut teller, &known(1, all(126))), "of 2: ");
    }
}
