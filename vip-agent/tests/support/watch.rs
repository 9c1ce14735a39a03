//! Watches who answers for the VIPs, at the client and at the switch's ports.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]

use std::time::Duration;

use anyhow::{Result, ensure};
use vip_lab::answers::{Answer, Answers};
use vip_lab::arping::Arping;
use vip_lab::wire::Wire;
use vip_lab::{Lab, Mac, Node, Stamp};

/// Questions for every VIP, and everything that is seen of the answers.
pub struct Watch {
    pub wire: Wire,
    probers: Vec<Arping>,
}

impl Watch {
    /// Asks for each VIP of the lab once per millisecond, by ARP or neighbour solicitation.
    pub fn start(lab: &Lab) -> Result<Self> {
        let wire = lab.wire()?;
        let ask = |&vip| Arping::start(lab.client(), vip, Duration::from_millis(1));
        Ok(Self { wire, probers: lab.vips().iter().map(ask).collect::<Result<_>>()? })
    }

    /// Waits until `node` has answered for every VIP.
    pub fn wait_answers_of(&self, node: &Node, timeout: Duration) -> Result<()> {
        let after = Stamp::now();
        let answered = || {
            self.probers.iter().all(|prober| {
                let answers = prober.answers();
                answers.all().iter().any(|answer| answer.at > after && answer.mac == node.mac())
            })
        };
        vip_lab::wait::until(timeout, answered)
            .map_err(|error| error.context(format!("{} does not answer for all VIPs", node.name())))
    }

    /// Who owned all VIPs, one after the other. A client saw the same as the ports did.
    ///
    /// # Errors
    /// A question was answered by two; an owner answered for one VIP after another had answered for any; or something
    /// was missed, so that the watch proves nothing.
    pub fn finish(self, lab: &Lab) -> Result<Vec<Mac>> {
        let mut seen_by_client = Vec::new();
        let mut seen_by_ports = Vec::new();
        for (prober, &vip) in self.probers.into_iter().zip(lab.vips()) {
            ensure!(prober.lost() == 0, "the prober for {vip} lost {} answers", prober.lost());
            seen_by_client.push(prober.stop()?);
            seen_by_ports.push(self.wire.answers_for(vip));
        }
        ensure!(self.wire.lost() == 0, "the capture lost {} frames", self.wire.lost());
        for (answers, vip) in seen_by_client.iter().chain(&seen_by_ports).zip(lab.vips().iter().cycle()) {
            ensure!(!answers.all().is_empty(), "nobody ever answered for {vip}");
            ensure!(answers.double().is_empty(), "{vip}: two answered: {:?}", answers.double());
        }
        let [client, ports] = [together(&seen_by_client), together(&seen_by_ports)].map(|all| all.tenures());
        let owners = |tenures: &[vip_lab::answers::Tenure]| -> Vec<Mac> {
            tenures.iter().map(|tenure| tenure.mac).collect()
        };
        ensure!(owners(&client) == owners(&ports), "the client saw {client:#?}, the ports saw {ports:#?}");
        Ok(owners(&ports))
    }
}

/// The answers for several VIPs as if they were one: they move together.
fn together(answers: &[Answers]) -> Answers {
    let all = answers.iter().flat_map(Answers::all);
    all.map(|&Answer { at, asker, mac }| (at, asker, mac)).collect()
}
