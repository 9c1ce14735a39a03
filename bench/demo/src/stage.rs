//! Where the story is played: the lab, the instruments that watch it, and the screen that shows what they see.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use vip_lab::answers::Answers;
use vip_lab::arping::Arping;
use vip_lab::requests::{Outcome, Request, Requests};
use vip_lab::wire::{Direction, Packet, Wire};
use vip_lab::{Lab, Mac, Stamp};

use crate::evidence::{Answer, Asked, Evidence, Family, Ms, NodeNumber, Sent};
use crate::options::Plan;
use crate::screen::{Cell, NodeView, Screen, View};

/// How often each family's VIP is asked for by ARP or neighbour discovery.
pub(crate) const PROBE_EVERY: Duration = Duration::from_millis(2);
/// How often the instruments are read while the story waits.
const TICK: Duration = Duration::from_millis(20);
/// How often the screen is drawn.
const FRAME: Duration = Duration::from_millis(100);
/// Who has not answered for so long is not shown as the owner.
const STALE: Ms = 100.0;

/// A lab under observation.
pub(crate) struct Stage<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) lab: &'a Lab,
    pub(crate) screen: &'a mut Screen,
    start: Stamp,
    requests: Requests,
    probers: Vec<Arping>,
    wire: Wire,
    nodes: HashMap<Mac, NodeNumber>,
    evidence: Evidence,
    /// What is shown of each node while it does not own.
    roles: Vec<&'static str>,
    cells: Vec<Cell>,
    shown_owner: Option<NodeNumber>,
    next_frame: Instant,
}

impl<'a> Stage<'a> {
    /// Starts the instruments, and the clock.
    pub(crate) fn open(plan: &'a Plan, lab: &'a Lab, screen: &'a mut Screen) -> Result<Self> {
        let watched = plan.watched();
        let prober = |&vip: &IpAddr| Arping::start(lab.client(), vip, PROBE_EVERY);
        let evidence = Evidence {
            families: watched.iter().map(|vip| Family { ipv6: vip.is_ipv6(), ..Family::default() }).collect(),
            ..Evidence::default()
        };
        Ok(Self {
            wire: lab.wire()?,
            start: Stamp::now(),
            requests: lab.requests().every(plan.every).patience(plan.patience).start()?,
            probers: watched.iter().map(prober).collect::<Result<_>>()?,
            nodes: (1..).zip(lab.nodes()).map(|(number, node)| (node.mac(), number)).collect(),
            roles: vec!["backup"; lab.nodes().len()],
            cells: Vec::new(),
            shown_owner: None,
            next_frame: Instant::now(),
            evidence,
            plan,
            lab,
            screen,
        })
    }

    /// Milliseconds since the start.
    pub(crate) fn now(&self) -> Ms {
        self.since_start(Stamp::now())
    }

    /// Says what a node does while it does not own.
    pub(crate) fn set_role(&mut self, node: NodeNumber, role: &'static str) {
        if let Some(shown) = node.checked_sub(1).and_then(|index| self.roles.get_mut(index)) {
            *shown = role;
        }
    }

    /// A line that stays, with the time.
    pub(crate) fn note(&mut self, text: &str) -> Result<()> {
        let seconds = self.now() / 1e3;
        self.screen.note(&format!("{seconds:7.2} s  {text}"))
    }

    /// Watches for `span`.
    pub(crate) fn pause(&mut self, span: Duration) -> Result<()> {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.watch()?;
            std::thread::sleep(TICK.min(end.saturating_duration_since(Instant::now())));
        }
        self.watch()
    }

    /// Watches until `node` answers for the VIPs of all families, for `timeout` at most; says whether it does.
    pub(crate) fn wait_for_owner(&mut self, node: NodeNumber, timeout: Duration) -> Result<bool> {
        let end = Instant::now() + timeout;
        loop {
            self.watch()?;
            let owns = |family: &Family| family.answers.last().is_some_and(|answer| answer.by == Some(node));
            if self.evidence.families.iter().all(owns) {
                return Ok(true);
            }
            if Instant::now() > end {
                return Ok(false);
            }
            std::thread::sleep(TICK);
        }
    }

    /// What is known by now; requests in flight are not.
    pub(crate) fn evidence(&mut self) -> &Evidence {
        self.read();
        self.evidence.requests.sort_by(|a, b| a.start.total_cmp(&b.start));
        self.read_wire();
        &self.evidence
    }

    /// Stops the instruments and returns all that they saw; beside it, what they missed.
    pub(crate) fn close(mut self) -> Result<(Evidence, Vec<String>)> {
        self.read_wire();
        let questions: Vec<Vec<Ms>> = self.plan.watched().iter().map(|&vip| self.questions(vip)).collect();
        let Self { start, nodes, requests, probers, mut evidence, .. } = self;
        let asked = |request: &Request| asked(request, start, &nodes_by_name(self.lab));
        evidence.requests = requests.stop().requests().iter().map(asked).collect();
        let mut missed = Vec::new();
        for ((family, prober), questions) in evidence.families.iter_mut().zip(probers).zip(questions) {
            family.questions = questions;
            if prober.lost() > 0 {
                missed.push(format!(
                    "{} answers about owners were missed: who owned is not proven",
                    prober.lost()
                ));
            }
            let answers = prober.stop()?;
            family.answers = seen(&answers, start, &nodes);
            family.double = answers.double().iter().map(|double| since(start, double.at)).collect();
        }
        Ok((evidence, missed))
    }

    fn since_start(&self, stamp: Stamp) -> Ms {
        since(self.start, stamp)
    }

    fn watch(&mut self) -> Result<()> {
        self.read();
        let owner = self.owner();
        if owner.is_some() && owner != self.shown_owner {
            self.shown_owner = owner;
            if !self.screen.is_in_place() {
                let names = owner.map(|node| format!("node{node} answers for the VIP")).unwrap_or_default();
                self.note(&names)?;
            }
        }
        let now = self.now();
        self.cell_at(now).owner = owner;
        if Instant::now() >= self.next_frame {
            self.next_frame = Instant::now() + FRAME;
            self.draw(owner)?;
        }
        Ok(())
    }

    fn draw(&mut self, owner: Option<NodeNumber>) -> Result<()> {
        if !self.screen.is_in_place() {
            return Ok(());
        }
        let nodes: Vec<NodeView> = (1..)
            .zip(&self.roles)
            .map(|(number, role)| NodeView {
                role: if owner == Some(number) { "OWNER" } else { role },
                priority: self.plan.priority(number),
                keepalived: self.plan.keepalived == Some(number),
            })
            .collect();
        let now = self.now();
        let requests = &self.evidence.requests;
        let view = View {
            seconds: now / 1e3,
            vips: &self.plan.watched(),
            nodes: &nodes,
            owner,
            cells: &self.cells,
            per_second: requests.iter().rev().take_while(|asked| asked.end > now - 1000.0).count(),
            lost: requests.iter().filter(|asked| asked.by.is_none()).count(),
        };
        self.screen.draw(&view)
    }

    /// Who answers for the first VIP now.
    fn owner(&self) -> Option<NodeNumber> {
        let last = self.evidence.families.first()?.answers.last()?;
        if self.now() - last.at < STALE { last.by } else { None }
    }

    /// Takes what has come since the last look.
    fn read(&mut self) {
        let names = nodes_by_name(self.lab);
        let new: Vec<Asked> = self
            .requests
            .since(self.evidence.requests.len())
            .iter()
            .map(|request| asked(request, self.start, &names))
            .collect();
        for asked in &new {
            let cell = self.cell_at(asked.start);
            cell.lost += usize::from(asked.by.is_none());
            cell.by = asked.by.or(cell.by);
        }
        self.evidence.requests.extend(new);
        for (family, prober) in self.evidence.families.iter_mut().zip(&self.probers) {
            family.answers.extend(seen(&prober.since(family.answers.len()), self.start, &self.nodes));
        }
    }

    fn read_wire(&mut self) {
        let watched = self.plan.watched();
        let wanted = |frame: &vip_lab::wire::Frame| {
            frame.direction == Direction::FromNode
                && (matches!(frame.packet, Packet::Vrrp(_))
                    || watched.iter().any(|&vip| frame.packet.announces(vip)))
        };
        self.evidence.adverts.clear();
        self.evidence.announcements.clear();
        for frame in self.wire.frames(wanted) {
            let Some(&by) = self.nodes.get(&frame.source) else { continue };
            let sent = Sent { at: self.since_start(frame.at), by };
            match frame.packet {
                Packet::Vrrp(_) => self.evidence.adverts.push(sent),
                _ => self.evidence.announcements.push(sent),
            }
        }
    }

    /// When the client asked for `vip`.
    fn questions(&self, vip: IpAddr) -> Vec<Ms> {
        let asks = |packet: &Packet| match (packet, vip) {
            (Packet::Arp(arp), IpAddr::V4(vip)) => {
                arp.operation == 1 && arp.target == vip && arp.sender != vip
            }
            (Packet::NeighborSolicitation(question), IpAddr::V6(vip)) => question.target == vip,
            _ => false,
        };
        let frames = self.wire.frames(|frame| frame.is_from(self.lab.client()) && asks(&frame.packet));
        frames.iter().map(|frame| self.since_start(frame.at)).collect()
    }

    fn cell_at(&mut self, at: Ms) -> &mut Cell {
        let index = (at / Cell::SPAN).max(0.0) as usize;
        if self.cells.len() <= index {
            self.cells.resize(index + 1, Cell::default());
        }
        &mut self.cells[index]
    }
}

fn since(start: Stamp, stamp: Stamp) -> Ms {
    (stamp - start).as_secs_f64() * 1e3
}

fn nodes_by_name(lab: &Lab) -> HashMap<&str, NodeNumber> {
    (1..).zip(lab.nodes()).map(|(number, node)| (node.name(), number)).collect()
}

fn asked(request: &Request, start: Stamp, nodes: &HashMap<&str, NodeNumber>) -> Asked {
    let (by, why_lost) = match &request.outcome {
        Outcome::Answered(name) => match nodes.get(&**name) {
            Some(&number) => (Some(number), None),
            None => (None, Some(format!("answered by {name:?}"))),
        },
        Outcome::TimedOut => (None, Some("timed out".into())),
        Outcome::Reset => (None, Some("reset".into())),
        Outcome::Refused => (None, Some("refused".into())),
        Outcome::Failed(why) => (None, Some(why.clone())),
    };
    let [start, end] = [request.start, request.end].map(|stamp| since(start, stamp));
    Asked { start, end, ipv6: request.target.is_ipv6(), by, why_lost }
}

fn seen(answers: &Answers, start: Stamp, nodes: &HashMap<Mac, NodeNumber>) -> Vec<Answer> {
    let seen = |answer: &vip_lab::answers::Answer| Answer {
        at: since(start, answer.at),
        by: nodes.get(&answer.mac).copied(),
    };
    answers.all().iter().map(seen).collect()
}
