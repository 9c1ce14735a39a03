//! `unicast_src_ip` and `unicast_peer`.

use std::net::IpAddr;

use super::instance::Key;
use super::notes::Notes;
use super::tree::Statement;

/// More than an agent takes.
const MOST: usize = 64;

/// Who is spoken to, and from where.
#[derive(Debug, Default)]
pub(super) struct Peers<'a> {
    source: Option<(IpAddr, &'a Statement)>,
    pub(super) peers: Vec<(IpAddr, &'a Statement)>,
    /// The `min_ttl` of each peer that has one.
    min_ttls: Vec<(IpAddr, u8, &'a Statement)>,
}

impl<'a> Peers<'a> {
    /// `unicast_src_ip`.
    pub(super) fn source(&mut self, statement: &'a Statement, notes: &mut Notes<Key>) {
        match address(statement.argument()) {
            Some(source) => self.source = Some((source, statement)),
            None => notes.add(Key::Unicast, statement, "is no address that a node can have: it is left out"),
        }
    }

    pub(super) fn source_address(&self) -> Option<IpAddr> {
        self.source.map(|(source, _)| source)
    }

    pub(super) fn source_statement(&self) -> Option<&'a Statement> {
        self.source.map(|(_, statement)| statement)
    }

    /// `unicast_peer`: one peer per line.
    pub(super) fn read(&mut self, block: &'a Statement, notes: &mut Notes<Key>) {
        for line in block.statements() {
            let Some(peer) = address(Some(line.keyword())) else {
                notes.add(Key::Unicast, line, "is no address that a node can have: it is left out");
                continue;
            };
            if self.peers.iter().any(|(known, _)| *known == peer) {
                notes.add(Key::Unicast, line, "stands in the list already");
                continue;
            }
            if self.peers.len() == MOST {
                notes.add(
                    Key::Unicast,
                    line,
                    format_args!("an instance has at most {MOST} peers: it is left out"),
                );
                continue;
            }
            self.peers.push((peer, line));
            self.options(peer, line, notes);
        }
    }

    fn options(&mut self, peer: IpAddr, line: &'a Statement, notes: &mut Notes<Key>) {
        let mut words = line.arguments().iter();
        while let Some(word) = words.next() {
            match (word.as_str(), words.next().and_then(|value| value.parse::<u8>().ok())) {
                // As without.
                ("min_ttl", Some(0)) | ("max_ttl", Some(255)) => {}
                ("min_ttl", Some(ttl)) => self.min_ttls.push((peer, ttl, line)),
                ("max_ttl", Some(_)) => {
                    notes.add(Key::Unicast, line, "there is no greatest TTL: any from min_ttl on is taken");
                }
                _ => {
                    let why =
                        "keepalived reads one peer per line, then min_ttl and max_ttl: the rest is left out";
                    notes.add(Key::Unicast, line, why);
                    break;
                }
            }
        }
    }

    /// `unicast.min_ttl`: the least of these peers', if all have one.
    pub(super) fn min_ttl(&self, peers: &[IpAddr], notes: &mut Notes<Key>) -> Option<u8> {
        let ttls: Vec<_> = self.min_ttls.iter().filter(|(peer, ..)| peers.contains(peer)).collect();
        let least = ttls.iter().map(|(_, ttl, _)| *ttl).min()?;
        if ttls.len() < peers.len() {
            let (_, _, line) = ttls.first()?;
            notes.add(
                Key::Unicast,
                line,
                "one min_ttl holds for all peers, and some have none: it is left out",
            );
            return None;
        }
        for (_, _, line) in ttls.iter().filter(|(_, ttl, _)| *ttl != least) {
            notes.add(
                Key::Unicast,
                line,
                format_args!("one min_ttl holds for all peers: the least, {least}"),
            );
        }
        Some(least)
    }
}

fn address(text: Option<&str>) -> Option<IpAddr> {
    crate::config::node(text?).ok()
}
