//! What changes from one configuration to the next: the work of a reload.

use std::fmt;
use std::time::Duration;

use super::VipAddress;
use super::model::{Auth, Config, Instance, Protocol};
use crate::types::ChecksumMode;

/// One change. [`diff`] yields removals first, then changes, then additions, each in the order of its file; probes and services last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// A setting of the whole process: it stays as it was until a restart.
    Process(ProcessField),
    /// An instance to stop. A new name is a new instance.
    Removed(&'a Instance),
    /// An instance that stays in another form.
    Changed {
        /// As it runs.
        old: &'a Instance,
        /// As it shall be.
        new: &'a Instance,
        /// What differs; not empty.
        fields: Vec<InstanceField>,
    },
    /// An instance to start.
    Added(&'a Instance),
    /// Another address, certificate or token of the HTTP API, or none any more.
    Api,
    /// Other probes. Those whose name and kind stay keep their verdicts.
    Probes,
    /// Other services. What is the same in the tables is not touched ([`crate::dataplane::services`]).
    Services,
}

impl Change<'_> {
    /// Whether an instance must be stopped and started again; what remains is applied while it runs.
    pub fn restarts_instance(&self) -> bool {
        matches!(self, Self::Changed { fields, .. } if fields.iter().any(|field| field.restarts_instance()))
    }
}

/// A setting of the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the key of its name")]
pub enum ProcessField {
    Node,
    RuntimeDir,
    StateDir,
    PinDir,
    LogLevel,
    LogFormat,
    Security,
    XdpMode,
    FlowSync,
}

impl ProcessField {
    /// Whether it is one of those that stay where they are while agents change: what is handed over lies there.
    pub fn stays_through_upgrade(self) -> bool {
        matches!(self, Self::RuntimeDir | Self::StateDir | Self::PinDir | Self::XdpMode)
    }
}

impl fmt::Display for ProcessField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::RuntimeDir => "runtime_dir",
            Self::StateDir => "state_dir",
            Self::PinDir => "pin_dir",
            Self::LogLevel => "log.level",
            Self::LogFormat => "log.format",
            Self::Security => "security",
            Self::XdpMode => "xdp_mode",
            Self::FlowSync => "flow_sync",
        })
    }
}

/// A setting of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the key of its name")]
pub enum InstanceField {
    VirtualRouterId,
    Interface,
    VipInterface,
    Version,
    Priority,
    AdvertInterval,
    Preempt,
    PreemptDelay,
    HoldDown,
    Accept,
    Strict,
    Checksum,
    VirtualMac,
    /// Another password, in the configuration or in its file, or another file.
    Auth,
    OnConflict,
    /// Other keys, in the same file or in another, or a change of who is heard.
    AuthTrailer,
    Unicast,
    /// The first VIP of a family has come or its last has gone: a virtual router more or less.
    Families,
    /// VIPs, without a change of [`InstanceField::Families`]; see [`vips_added`] and [`vips_removed`].
    Vips,
    LocalAddress,
    Announce,
    Grace,
    Track,
    AllFailed,
    SyncGroup,
    Detect,
}

impl InstanceField {
    /// Whether the change needs other sockets, another ownership word or another virtual router: the instance is
    /// stopped and started again. All else is applied while it runs, without leaving its state.
    pub fn restarts_instance(self) -> bool {
        matches!(
            self,
            Self::VirtualRouterId
                | Self::Interface
                | Self::VipInterface
                | Self::Version
                | Self::VirtualMac
                | Self::Families
                | Self::SyncGroup
        )
    }
}

/// VIPs that the new form has and the old has not, by address: a prefix length alone makes no other VIP.
pub fn vips_added<'a>(old: &'a Instance, new: &'a Instance) -> impl Iterator<Item = &'a VipAddress> {
    new.vips.iter().filter(|vip| old.vips.iter().all(|other| other.address != vip.address))
}

/// VIPs that the old form has and the new has not.
pub fn vips_removed<'a>(old: &'a Instance, new: &'a Instance) -> impl Iterator<Item = &'a VipAddress> {
    vips_added(new, old)
}

/// Compares two configurations.
///
/// A VIP may move from one instance to another: apply what goes before what comes.
pub fn diff<'a>(old: &'a Config, new: &'a Config) -> Vec<Change<'a>> {
    let mut changes: Vec<Change<'a>> = process_fields(old, new).map(Change::Process).collect();
    let removed = old.instances.iter().filter(|instance| new.instance(instance.name.as_str()).is_none());
    changes.extend(removed.map(Change::Removed));
    let mut added = Vec::new();
    for instance in &new.instances {
        match old.instance(instance.name.as_str()) {
            None => added.push(Change::Added(instance)),
            Some(old) if old == instance => {}
            Some(old) => {
                let fields = instance_fields(old, instance);
                changes.push(Change::Changed { old, new: instance, fields });
            }
        }
    }
    changes.extend(added);
    changes.extend((old.api != new.api).then_some(Change::Api));
    changes.extend((old.probes != new.probes).then_some(Change::Probes));
    changes.extend((old.services != new.services).then_some(Change::Services));
    changes
}

impl Config {
    /// This configuration, but for what takes another process: that stays as in `running`.
    #[must_use]
    pub fn within_the_process_of(self, running: &Self) -> Self {
        Self {
            node: running.node.clone(),
            runtime_dir: running.runtime_dir.clone(),
            state_dir: running.state_dir.clone(),
            pin_dir: running.pin_dir.clone(),
            log: running.log,
            security: running.security,
            xdp_mode: running.xdp_mode,
            flow_sync: running.flow_sync.clone(),
            ..self
        }
    }
}

fn process_fields(old: &Config, new: &Config) -> impl Iterator<Item = ProcessField> {
    // Destructured, so that a new setting cannot be forgotten here.
    // What is not compared is applied by a reload.
    let Config {
        node,
        runtime_dir,
        state_dir,
        pin_dir,
        log,
        api: _,
        // What it makes is in the instances.
        interface: _,
        kubernetes: _,
        security,
        reload_on_change: _,
        xdp_mode,
        flow_sync,
        probes: _,
        instances: _,
        services: _,
    } = old;
    [
        (ProcessField::Node, *node != new.node),
        (ProcessField::RuntimeDir, *runtime_dir != new.runtime_dir),
        (ProcessField::StateDir, *state_dir != new.state_dir),
        (ProcessField::PinDir, *pin_dir != new.pin_dir),
        (ProcessField::LogLevel, log.level != new.log.level),
        (ProcessField::LogFormat, log.format != new.log.format),
        (ProcessField::Security, *security != new.security),
        (ProcessField::XdpMode, *xdp_mode != new.xdp_mode),
        (ProcessField::FlowSync, *flow_sync != new.flow_sync),
    ]
    .into_iter()
    .filter_map(|(field, differs)| differs.then_some(field))
}

fn instance_fields(old: &Instance, new: &Instance) -> Vec<InstanceField> {
    // Destructured, so that a new setting cannot be forgotten here.
    let Instance {
        name: _,
        virtual_router_id,
        interface,
        vip_interface,
        protocol,
        priority,
        preempt,
        preempt_delay,
        hold_down,
        accept,
        strict,
        virtual_mac,
        unicast,
        vips,
        auth_trailer,
        on_conflict,
        local_address,
        announce,
        grace,
        track,
        all_failed,
        sync_group,
        detect,
    } = old;
    let families = |instance: &Instance| (instance.vips_v4().count() > 0, instance.vips_v6().count() > 0);
    let families_differ = families(old) != families(new);
    let same_version = protocol.version() == new.protocol.version();
    [
        (InstanceField::VirtualRouterId, *virtual_router_id != new.virtual_router_id),
        (InstanceField::Interface, *interface != new.interface),
        (InstanceField::VipInterface, *vip_interface != new.vip_interface),
        (InstanceField::Version, !same_version),
        (InstanceField::Priority, *priority != new.priority),
        (InstanceField::AdvertInterval, interval(protocol) != interval(&new.protocol)),
        (InstanceField::Preempt, *preempt != new.preempt),
        (InstanceField::PreemptDelay, *preempt_delay != new.preempt_delay),
        (InstanceField::HoldDown, *hold_down != new.hold_down),
        (InstanceField::Accept, *accept != new.accept),
        (InstanceField::Strict, *strict != new.strict),
        (InstanceField::Checksum, same_version && checksum(protocol) != checksum(&new.protocol)),
        (InstanceField::VirtualMac, *virtual_mac != new.virtual_mac),
        (InstanceField::Auth, auth(protocol) != auth(&new.protocol)),
        (InstanceField::OnConflict, *on_conflict != new.on_conflict),
        (InstanceField::AuthTrailer, *auth_trailer != new.auth_trailer),
        (InstanceField::Unicast, *unicast != new.unicast),
        (InstanceField::Families, families_differ),
        (InstanceField::Vips, !families_differ && *vips != new.vips),
        (InstanceField::LocalAddress, *local_address != new.local_address),
        (InstanceField::Announce, *announce != new.announce),
        (InstanceField::Grace, *grace != new.grace),
        (InstanceField::Track, *track != new.track),
        (InstanceField::AllFailed, *all_failed != new.all_failed),
        (InstanceField::SyncGroup, *sync_group != new.sync_group),
        (InstanceField::Detect, *detect != new.detect),
    ]
    .into_iter()
    .filter_map(|(field, differs)| differs.then_some(field))
    .collect()
}

fn interval(protocol: &Protocol) -> Duration {
    protocol.advert_interval().duration()
}

fn checksum(protocol: &Protocol) -> Option<ChecksumMode> {
    match protocol {
        Protocol::V2 { .. } => None,
        Protocol::V3 { checksum, .. } => Some(*checksum),
    }
}

fn auth(protocol: &Protocol) -> Option<&Auth> {
    match protocol {
        Protocol::V2 { auth, .. } => auth.as_ref(),
        Protocol::V3 { .. } => None,
    }
}
