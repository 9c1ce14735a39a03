//! Keywords of keepalived 2.2.7 that viplane has no equivalent of, by block: why, and what to do instead.

const NO_MAIL: &str = "viplane sends no mail: alert on `vip-agent status --json` or the agent's metrics";
const NO_SCRIPTS: &str = "viplane runs nothing when a state changes: watch `vip-agent status --json` or the agent's \
                          metrics, or have a unit of your own poll them";
const SCHEDULING: &str = "not needed: the driver thread has real-time priority and locked memory by itself, where \
                          its capabilities allow";
const NO_ROUTES: &str = "viplane moves addresses only: make it permanent with your network's own configuration, or let \
                         a routing daemon announce it";
const ONLY_LVS: &str = "of keepalived's LVS part, which this import leaves out";
const FIREWALL: &str = "not needed: the XDP program does what keepalived asks of a firewall";
const NETLINK: &str = "not needed: the agent keeps its own sockets' buffers";
const SNMP_DBUS: &str = "no SNMP or D-Bus: use `vip-agent status --json` or the agent's metrics";
const PROCESSES: &str = "has no meaning for viplane, which is one process";
const MACVLAN: &str = "not needed: `virtual_mac` makes no macvlan interface";
const PACING: &str = "announcements are spread by `announce.repeat` and `announce.interval`, all VIPs in one go each \
                      time: raise the interval if switches drop some";
const INTERFACES: &str = "not needed: links are followed by netlink, and may come and go";

/// In `global_defs`, and at the top of the file where keepalived allows it.
pub(super) fn global(keyword: &str) -> Option<&'static str> {
    Some(match keyword {
        "notification_email"
        | "notification_email_from"
        | "smtp_server"
        | "smtp_helo_name"
        | "smtp_connect_timeout"
        | "smtp_alert"
        | "smtp_alert_vrrp"
        | "smtp_alert_checker"
        | "no_email_faults"
        | "no_checker_emails" => NO_MAIL,
        "startup_script" | "startup_script_timeout" | "shutdown_script" | "shutdown_script_timeout" => {
            "viplane runs no such scripts: use ExecStartPre= and ExecStopPost= of vip-agent.service"
        }
        "notify_fifo"
        | "notify_fifo_script"
        | "vrrp_notify_fifo"
        | "vrrp_notify_fifo_script"
        | "fifo_write_vrrp_states_on_reload"
        | "vrrp_notify_priority_changes" => NO_SCRIPTS,
        "enable_script_security" | "script_security" => {
            "commands are run as they are written: see to it that nobody else can write them"
        }
        "script_user" => {
            "probes run as the agent's user: use a command that changes it, such as `setpriv --reuid=USER`"
        }
        "net_namespace" => {
            "run the agent in the namespace (NetworkNamespacePath= of vip-agent.service), with a `runtime_dir`, \
             `state_dir` and `pin_dir` of its own"
        }
        "instance" | "use_pid_dir" => {
            "agents are kept apart by network namespace: give each its own `runtime_dir`, `state_dir` and `pin_dir`"
        }
        "process_names"
        | "process_name"
        | "vrrp_process_name"
        | "checker_process_name"
        | "bfd_process_name"
        | "child_wait_time"
        | "process_monitor_rcv_bufs"
        | "process_monitor_rcv_bufs_force"
        | "config_save_dir"
        | "tmp_config_directory"
        | "umask"
        | "data_use_instance"
        | "random_seed" => PROCESSES,
        "vrrp_priority"
        | "vrrp_no_swap"
        | "vrrp_rt_priority"
        | "vrrp_rlimit_rttime"
        | "vrrp_rlimit_rtime"
        | "max_auto_priority"
        | "min_auto_priority_delay" => SCHEDULING,
        "vrrp_cpu_affinity" => "set CPUAffinity= of vip-agent.service",
        "checker_priority"
        | "checker_no_swap"
        | "checker_rt_priority"
        | "checker_rlimit_rttime"
        | "checker_rlimit_rtime"
        | "checker_cpu_affinity"
        | "checker_log_all_failures"
        | "lvs_sync_daemon"
        | "lvs_sync_daemon_interface"
        | "lvs_timeouts"
        | "lvs_flush"
        | "lvs_flush_on_stop"
        | "lvs_notify_fifo"
        | "lvs_notify_fifo_script"
        | "lvs_netlink_cmd_rcv_bufs"
        | "lvs_netlink_cmd_rcv_bufs_force"
        | "lvs_netlink_monitor_rcv_bufs"
        | "lvs_netlink_monitor_rcv_bufs_force"
        | "rs_init_notifies"
        | "net_namespace_ipvs"
        | "nftables_ipvs"
        | "nftables_ipvs_priority"
        | "nftables_ipvs_start_fwmark" => ONLY_LVS,
        "bfd_priority" | "bfd_no_swap" | "bfd_rt_priority" | "bfd_rlimit_rttime" | "bfd_rlimit_rtime"
        | "bfd_cpu_affinity" => "viplane has no BFD: a short `advert_interval` detects a dead peer",
        "nftables"
        | "nftables_priority"
        | "nftables_counters"
        | "nftables_ifindex"
        | "vrrp_iptables"
        | "vrrp_ipsets"
        | "namespace_with_ipsets"
        | "disable_local_igmp" => FIREWALL,
        "vrrp_netlink_cmd_rcv_bufs"
        | "vrrp_netlink_cmd_rcv_bufs_force"
        | "vrrp_netlink_monitor_rcv_bufs"
        | "vrrp_netlink_monitor_rcv_bufs_force"
        | "vrrp_rx_bufs_policy"
        | "vrrp_rx_bufs_multiplier" => NETLINK,
        "snmp_socket"
        | "enable_snmp_vrrp"
        | "enable_snmp_checker"
        | "enable_snmp_rfc"
        | "enable_snmp_rfcv2"
        | "enable_snmp_rfcv3"
        | "enable_traps"
        | "enable_snmp_keepalived"
        | "enable_dbus"
        | "dbus_service_name" => SNMP_DBUS,
        "vmac_prefix" | "vmac_addr_prefix" => MACVLAN,
        "linkbeat_use_polling" | "linkbeat_interfaces" | "dynamic_interfaces" => INTERFACES,
        "vrrp_garp_interval"
        | "vrrp_gna_interval"
        | "vrrp_garp_master_repeat"
        | "vrrp_garp_master_refresh_repeat"
        | "vrrp_garp_extra_if" => PACING,
        "vrrp_garp_lower_prio_delay" | "vrrp_garp_lower_prio_repeat" => LOWER_PRIORITY,
        "vrrp_lower_prio_no_advert" | "vrrp_lower_prio_dont_send_advert" => NO_ADVERT,
        "vrrp_higher_prio_send_advert" => SEND_ADVERT,
        "vrrp_check_unicast_src" => CHECK_SOURCE,
        "vrrp_skip_check_adv_addr" => SKIP_CHECK,
        "log_unknown_vrids" => "a VRID that is not configured is not logged",
        "reload_check_config" => "always so: a reload with errors changes nothing",
        "include_check" => "a file that an `include` does not find is a remark of this import",
        "reload_time_file" | "reload_repeat" | "reload_file" => {
            "a reload is asked for by `vip-agent reload` or SIGHUP: schedule it with a timer of your own"
        }
        _ => return None,
    })
}

const LOWER_PRIORITY: &str = "an Active router answers a lower priority with an advert at once; its announcements are \
                              repeated by `announce.refresh`";
const NO_ADVERT: &str = "RFC 9568 wants the advert, and it is always sent";
const SEND_ADVERT: &str = "a router that hears a higher priority becomes Backup and says nothing more";
const CHECK_SOURCE: &str = "always so: with `unicast`, only its peers are heard";
const SKIP_CHECK: &str =
    "a foreign list of VIPs is an alarm and no reason to drop an advert, unless `strict`";

/// In `vrrp_instance`.
pub(super) fn instance(keyword: &str) -> Option<&'static str> {
    Some(match keyword {
        "notify"
        | "notify_master"
        | "notify_backup"
        | "notify_fault"
        | "notify_stop"
        | "notify_deleted"
        | "notify_master_rx_lower_pri"
        | "notify_priority_changes" => NO_SCRIPTS,
        "smtp_alert" => NO_MAIL,
        "virtual_routes" | "virtual_rules" => NO_ROUTES,
        "vrf" => "name the VRF's own interface as `interface`",
        "use_vmac_addr" => "`virtual_mac` is of the instance's one `vip_interface`",
        "use_ipvlan" => {
            "viplane makes no ipvlan interface: VIPs are answered on `vip_interface`, with its own MAC or `virtual_mac`"
        }
        "dont_track_primary" => "an interface that is down is always a fault: nothing could be sent",
        "mcast_src_ip" => {
            "multicast adverts come from the interface's own first address: it decides between equal priorities"
        }
        "mcast_dst_ip" => {
            "NOT COMPATIBLE with keepalived peers: adverts go to 224.0.0.18 and ff02::12 only; take the keyword away on \
             all nodes first, or use `unicast`"
        }
        "track_src_ip" => "a source that is gone cannot send, and who cannot send does not answer for VIPs",
        "check_unicast_src" => CHECK_SOURCE,
        "unicast_fault_no_peer" => "always so: `unicast` without peers is an error",
        "unicast_ttl" => {
            "adverts are always sent with a TTL or hop limit of 255: take 255 into account in the peers' min_ttl"
        }
        "garp_master_repeat" | "garp_master_refresh_repeat" | "garp_extra_if" | "garp_extra_if_vmac" => {
            PACING
        }
        "garp_lower_prio_delay" | "garp_lower_prio_repeat" => LOWER_PRIORITY,
        "lower_prio_no_advert" => NO_ADVERT,
        "higher_prio_send_advert" => SEND_ADVERT,
        "promote_secondaries" => "not needed: VIPs are host addresses on lo, and take no others with them",
        "skip_check_adv_addr" => SKIP_CHECK,
        "native_ipv6" => "not needed: the VIPs say which family it is",
        "debug" => "see `log`",
        "kernel_rx_buf_size" => NETLINK,
        "linkbeat_use_polling" => INTERFACES,
        "lvs_sync_daemon_interface" => ONLY_LVS,
        "track_bfd" => "viplane has no BFD: a short `advert_interval` detects a dead peer",
        "track_file" => {
            "viplane's probes do not read numbers from files: write a probe with `exec` that tests the file"
        }
        _ => return None,
    })
}

/// In `vrrp_sync_group`.
pub(super) fn sync_group(keyword: &str) -> Option<&'static str> {
    match keyword {
        "notify"
        | "notify_master"
        | "notify_backup"
        | "notify_fault"
        | "notify_stop"
        | "notify_deleted"
        | "notify_priority_changes" => Some(NO_SCRIPTS),
        "smtp_alert" => Some(NO_MAIL),
        "global_tracking" | "track_bfd" | "track_file" => {
            instance(keyword).or(Some("deprecated: members' own `track` is kept, with its weights"))
        }
        _ => None,
    }
}

/// Blocks at the top of the file that are left out as a whole.
pub(super) fn block(keyword: &str) -> Option<&'static str> {
    Some(match keyword {
        "virtual_server" | "virtual_server_group" => {
            "load balancing is not imported: write it as `services` (modes nat, dr, tunnel), or let keepalived go on \
             with it: `keepalived --check` runs without VRRP"
        }
        "SSL" => ONLY_LVS,
        "bfd_instance" => "viplane has no BFD: a short `advert_interval` detects a dead peer",
        "static_ipaddress" | "static_routes" | "static_rules" | "track_group" => {
            "not moved by VRRP: make it permanent with your network's own configuration"
        }
        "garp_group" => PACING,
        "linkbeat_interfaces" => INTERFACES,
        "interface_up_down_delays" => {
            "an interface that is down is a fault at once: use a probe with `fall` and `rise` to debounce"
        }
        "track_file" | "vrrp_track_file" => {
            "viplane's probes do not read numbers from files: write a probe with `exec` that tests the file, and its weight"
        }
        _ => return None,
    })
}
