//! `flow_sync`: telling peers about flows, so that the next owner of the VIPs knows them ([`crate::flow_sync`]).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::api;
use super::field::{Field, Mapping};
use super::secrets::Secrets;
use super::tree::Value;
use crate::vrrp::trailer::KeyRing;

/// `flow_sync`, where it is not null. Its serialised form does not hold the keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowSync {
    /// An address of this node and a UDP port, the same one on all nodes; neither is 0.
    pub listen: SocketAddr,
    /// Absolute.
    pub key_file: PathBuf,
    /// What it held when the configuration was read.
    #[serde(skip)]
    pub keys: KeyRing,
    /// Where the peers listen; `None`: at the addresses that the instances' routers send adverts from.
    pub peers: Option<BTreeSet<IpAddr>>,
}

/// `flow_sync` of the file: null, or a mapping. Errors here never repeat what may be a key in the wrong place.
pub(super) fn flow_sync(file: &Mapping<'_>, secrets: &Secrets<'_>) -> Option<Option<FlowSync>> {
    file.or(
        "flow_sync",
        None,
        |field| {
            if field.is_null() { Some(None) } else { read(field, secrets).map(Some) }
        },
    )
}

fn read(field: &Field<'_>, secrets: &Secrets<'_>) -> Option<FlowSync> {
    if !matches!(field.node.value, Value::Mapping(_)) {
        return field.refuse("must be null or `{listen: \"IP:PORT\", key_file: FILE}`");
    }
    let sync = field.mapping(&["listen", "key_file", "peers"])?;
    let listen = sync.required("listen").and_then(|field| listen(&field));
    let keys = sync.required("key_file").and_then(|field| keys(&field, secrets));
    let peers =
        sync.or("peers", None, |field| if field.is_null() { Some(None) } else { peers(field).map(Some) });
    let (listen, (key_file, keys), peers) = (listen?, keys?, peers?);
    if let Some(stranger) = peers.iter().flatten().find(|peer| peer.is_ipv4() != listen.is_ipv4()) {
        return field.refuse(format_args!("peers: {stranger} is not of the family of `listen`, {listen}"));
    }
    if peers.iter().flatten().any(|peer| *peer == listen.ip()) {
        return field.refuse(format_args!("peers: {} is this node's own, of `listen`", listen.ip()));
    }
    Some(FlowSync { listen, key_file, keys, peers })
}

/// Whom datagrams come from tells peers apart, so that it is to be one address.
fn listen(field: &Field<'_>) -> Option<SocketAddr> {
    let listen = api::listen(field)?;
    if listen.ip().is_unspecified() {
        return field.refuse("must name one address of this node, by which its peers know it");
    }
    Some(listen)
}

fn keys(field: &Field<'_>, secrets: &Secrets<'_>) -> Option<(PathBuf, KeyRing)> {
    let path = match &field.node.value {
        Value::Text(text) if text.starts_with('/') && !text.contains('\0') => Path::new(text),
        _ => return field.refuse("must be the absolute path of a file"),
    };
    match (secrets.key_file)(path) {
        Ok(keys) => Some((path.to_owned(), keys)),
        Err(error) => field.refuse(format_args!("{} {error}", path.display())),
    }
}

fn peers(field: &Field<'_>) -> Option<BTreeSet<IpAddr>> {
    let peer = |field: &Field<'_>| field.accept(super::node(field.text()?));
    let peers: Vec<Option<IpAddr>> = field.list()?.iter().map(peer).collect();
    peers.into_iter().collect()
}
