//! What watchers say, put together: the cluster as it is known, while parts of it are listed anew. Pure.

use std::collections::BTreeSet;

use crate::cluster::{Cluster, ConfigMap, Node, ObjectName, Service, Slice};
use crate::pools::{Pool, VirtualIp};

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    ConfigMap,
    Services,
    Slices,
    Nodes,
    Agents,
    Pools,
    VirtualIps,
}

impl Kind {
    /// As the API calls it, and as a role has to name it.
    pub(super) const fn resource(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmaps",
            Self::Services => "services",
            Self::Slices => "endpointslices.discovery.k8s.io",
            Self::Nodes => "nodes",
            Self::Agents => "pods",
            Self::Pools => "vippools.viplane.dev",
            Self::VirtualIps => "virtualips.viplane.dev",
        }
    }
}

const ALL: [Kind; 7] =
    [Kind::ConfigMap, Kind::Services, Kind::Slices, Kind::Nodes, Kind::Agents, Kind::Pools, Kind::VirtualIps];

/// News of one kind of object.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// A list begins: what is not in it is gone.
    Listing(Kind),
    /// An object of the list.
    Listed(Object),
    /// The list is complete.
    Complete(Kind),
    /// An object is there, or another than it was.
    Is(Object),
    /// An object is gone.
    Gone(Kind, ObjectName),
    /// The server has no objects of this kind: their definition is not installed.
    Undefined(Kind),
    /// It cannot be followed now, in words.
    Failed(Kind, String),
}

/// An object that counts.
#[derive(Clone, Debug)]
pub(super) enum Object {
    ConfigMap(ConfigMap),
    Service(ObjectName, Service),
    Slice(ObjectName, Slice),
    Node(String, Node),
    /// A pod of ours: its name and its node's.
    Agent(String, String),
    Pool(String, Box<Pool>),
    VirtualIp(ObjectName, Box<VirtualIp>),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) cluster: Cluster,
    /// Lists that are not complete.
    listing: Cluster,
    /// Kinds that are to be known.
    wanted: BTreeSet<Kind>,
    /// Kinds that are.
    known: BTreeSet<Kind>,
}

impl Book {
    /// A new session: these kinds have to be listed anew before anything counts. The others are empty.
    pub(super) fn begin(&mut self, wanted: impl IntoIterator<Item = Kind>) {
        self.wanted = wanted.into_iter().collect();
        self.known.clear();
        self.listing = Cluster::default();
    }

    /// Whether all that is wanted is known.
    pub(super) fn is_complete(&self) -> bool {
        self.wanted.is_subset(&self.known)
    }

    pub(super) fn note(&mut self, change: Change) {
        match change {
            Change::Listing(kind) => take(kind, &mut self.listing, &mut Cluster::default()),
            Change::Listed(object) => put(object, &mut self.listing),
            Change::Complete(kind) => {
                take(kind, &mut self.cluster, &mut self.listing);
                self.known.insert(kind);
                if self.is_complete() {
                    self.forget_unwanted();
                }
            }
            Change::Is(object) => put(object, &mut self.cluster),
            Change::Gone(kind, name) => remove(kind, &name, &mut self.cluster),
            // Where there was one, its objects are followed to their end: this is an answer of a server that has only started.
            Change::Undefined(kind) if self.known.contains(&kind) => {}
            Change::Undefined(kind) => {
                self.note(Change::Listing(kind));
                self.note(Change::Complete(kind));
            }
            Change::Failed(..) => {}
        }
    }

    /// What another session knew and this one does not ask for.
    fn forget_unwanted(&mut self) {
        for kind in ALL {
            if !self.wanted.contains(&kind) {
                take(kind, &mut self.cluster, &mut Cluster::default());
                if kind == Kind::Agents {
                    self.cluster.agents = None;
                }
            }
        }
    }
}

/// Moves what is known of a kind; what was there is gone.
fn take(kind: Kind, to: &mut Cluster, from: &mut Cluster) {
    match kind {
        Kind::ConfigMap => to.config_map = from.config_map.take(),
        Kind::Services => to.services = std::mem::take(&mut from.services),
        Kind::Slices => to.slices = std::mem::take(&mut from.slices),
        Kind::Nodes => to.nodes = std::mem::take(&mut from.nodes),
        Kind::Pools => to.pools = std::mem::take(&mut from.pools),
        Kind::VirtualIps => to.virtual_ips = std::mem::take(&mut from.virtual_ips),
        // Known, even if there is none.
        Kind::Agents => to.agents = Some(from.agents.take().unwrap_or_default()),
    }
}

fn put(object: Object, cluster: &mut Cluster) {
    match object {
        Object::ConfigMap(map) => cluster.config_map = Some(map),
        Object::Service(name, service) => drop(cluster.services.insert(name, service)),
        Object::Slice(name, slice) => drop(cluster.slices.insert(name, slice)),
        Object::Node(name, node) => drop(cluster.nodes.insert(name, node)),
        Object::Pool(name, pool) => drop(cluster.pools.insert(name, *pool)),
        Object::VirtualIp(name, object) => drop(cluster.virtual_ips.insert(name, *object)),
        Object::Agent(pod, node) => drop(cluster.agents.get_or_insert_default().insert(pod, node)),
    }
}

fn remove(kind: Kind, name: &ObjectName, cluster: &mut Cluster) {
    match kind {
        Kind::ConfigMap => cluster.config_map = None,
        Kind::Services => drop(cluster.services.remove(name)),
        Kind::Slices => drop(cluster.slices.remove(name)),
        Kind::Nodes => drop(cluster.nodes.remove(&name.name)),
        Kind::Pools => drop(cluster.pools.remove(&name.name)),
        Kind::VirtualIps => drop(cluster.virtual_ips.remove(name)),
        Kind::Agents => drop(cluster.agents.as_mut().and_then(|agents| agents.remove(&name.name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> Object {
        Object::Node(name.to_owned(), Node::default())
    }

    fn nodes(book: &Book) -> Vec<&str> {
        book.cluster.nodes.keys().map(String::as_str).collect()
    }

    fn note(book: &mut Book, changes: impl IntoIterator<Item = Change>) {
        changes.into_iter().for_each(|change| book.note(change));
    }

    #[test]
    fn nothing_counts_before_all_is_listed() {
        let mut book = Book::default();
        book.begin([Kind::Nodes, Kind::Services]);
        note(
            &mut book,
            [Change::Listing(Kind::Nodes), Change::Listed(node("a")), Change::Complete(Kind::Nodes)],
        );
        assert!(!book.is_complete());
        note(&mut book, [Change::Listing(Kind::Services), Change::Complete(Kind::Services)]);
        assert!(book.is_complete());
        assert_eq!(nodes(&book), ["a"]);
    }

    #[test]
    fn what_was_known_stays_until_a_new_list_is_complete_and_goes_then() {
        let mut book = Book::default();
        book.begin([Kind::Nodes]);
        note(
            &mut book,
            [Change::Listed(node("a")), Change::Listed(node("b")), Change::Complete(Kind::Nodes)],
        );
        // A watch that has expired (410) lists anew.
        note(&mut book, [Change::Listing(Kind::Nodes), Change::Listed(node("b"))]);
        assert_eq!(nodes(&book), ["a", "b"]);
        assert!(book.is_complete());
        note(&mut book, [Change::Complete(Kind::Nodes)]);
        assert_eq!(nodes(&book), ["b"]);
    }

    #[test]
    fn a_list_that_broke_off_leaves_nothing_in_the_next_one() {
        let mut book = Book::default();
        book.begin([Kind::Nodes]);
        note(&mut book, [Change::Listing(Kind::Nodes), Change::Listed(node("a"))]);
        note(&mut book, [Change::Failed(Kind::Nodes, "reset".into()), Change::Listing(Kind::Nodes)]);
        note(&mut book, [Change::Listed(node("b")), Change::Complete(Kind::Nodes)]);
        assert_eq!(nodes(&book), ["b"]);
    }

    #[test]
    fn objects_come_change_and_go() {
        let mut book = Book::default();
        note(&mut book, [Change::Is(node("a")), Change::Is(Object::Agent("pod".into(), "a".into()))]);
        let cordoned = Node { cordoned: true, ..Node::default() };
        note(&mut book, [Change::Is(Object::Node("a".into(), cordoned))]);
        assert!(book.cluster.nodes["a"].cordoned);
        let name = |name: &str| ObjectName { namespace: String::new(), name: name.into() };
        note(&mut book, [Change::Gone(Kind::Nodes, name("a")), Change::Gone(Kind::Agents, name("pod"))]);
        assert!(
            book.cluster.nodes.is_empty()
                && book.cluster.agents.as_ref().is_some_and(std::collections::BTreeMap::is_empty)
        );
    }

    #[test]
    fn a_kind_that_the_server_does_not_know_has_no_objects_unless_it_had_some() {
        let mut book = Book::default();
        book.begin([Kind::Nodes]);
        note(&mut book, [Change::Undefined(Kind::Nodes)]);
        assert!(book.is_complete() && book.cluster.nodes.is_empty());
        note(&mut book, [Change::Listed(node("a")), Change::Complete(Kind::Nodes)]);
        note(&mut book, [Change::Undefined(Kind::Nodes)]);
        assert_eq!(nodes(&book), ["a"]);
    }

    #[test]
    fn a_session_that_does_not_ask_for_agents_lets_all_nodes_take_part() {
        let mut book = Book::default();
        book.begin([Kind::Agents]);
        note(&mut book, [Change::Complete(Kind::Agents)]);
        assert_eq!(book.cluster.agents, Some([].into()));
        book.begin([Kind::Nodes]);
        note(&mut book, [Change::Complete(Kind::Nodes)]);
        assert_eq!(book.cluster.agents, None);
    }
}
