//! Nothing is lost silently: every keyword of the manual leaves a trace.

use super::*;

/// Of `vrrp_instance` in keepalived.conf(5) 2.2.7, in its order; those that a plain instance has are left out.
const INSTANCE: &str = "state MASTER|state BACKUP|vrf red|use_vmac vrrp.5 00:00:5e:00:01:05|use_vmac_addr|vmac_xmit_base|use_ipvlan|native_ipv6|\
    dont_track_primary|track_interface {\neth1\n}|track_script {\nx\n}|track_file {\nx\n}|track_process {\nx\n}|track_bfd {\nx\n}|mcast_src_ip 10.0.0.3|\
    unicast_src_ip 10.0.0.3|mcast_dst_ip 224.0.0.99|track_src_ip|version 2|check_unicast_src|unicast_peer {\n10.0.0.2\n}|unicast_fault_no_peer|unicast_ttl 64|\
    old_unicast_checksum|old_unicast_checksum never|garp_master_delay 5|garp_master_repeat 2|garp_lower_prio_delay 5|garp_lower_prio_repeat 1|\
    garp_master_refresh 60|garp_master_refresh_repeat 2|garp_extra_if all 100|garp_extra_if_vmac 100|down_timer_adverts 3|lower_prio_no_advert|\
    higher_prio_send_advert|virtual_router_id 52|priority 101|advert_int 1|authentication {\nauth_type PASS\n}|virtual_ipaddress_excluded {\n10.0.0.77\n}|\
    promote_secondaries|virtual_routes {\nblackhole 10.0.0.0/8\n}|virtual_rules {\nfrom 10.0.0.0/8 table 1\n}|accept|no_accept|nopreempt|preempt|preempt_delay 5|\
    skip_check_adv_addr|strict_mode|debug 2|notify_master /x|notify_backup /x|notify_fault /x|notify_stop /x|notify_deleted|notify /x|\
    notify_master_rx_lower_pri /x|notify_priority_changes on|smtp_alert|kernel_rx_buf_size 100|linkbeat_use_polling|lvs_sync_daemon_interface eth1|unheard_of";

/// Of `global_defs`.
const GLOBAL: &str = "tmp_config_directory|config_save_dir|process_names|process_name x|vrrp_process_name x|checker_process_name x|bfd_process_name x|\
    startup_script x|startup_script_timeout 5|shutdown_script x|shutdown_script_timeout 5|notification_email {\na@b\n}|notification_email_from a@b|\
    smtp_server 127.0.0.1|smtp_helo_name x|smtp_connect_timeout 30|smtp_alert on|smtp_alert_vrrp on|smtp_alert_checker on|checker_log_all_failures on|\
    no_email_faults|router_id other|vrrp_mcast_group4 224.0.0.18|vrrp_mcast_group4 224.0.0.19|vrrp_mcast_group6 ff02::12|lvs_sync_daemon eth0|\
    lvs_timeouts tcp 5|lvs_flush|lvs_flush_on_stop|vrrp_garp_master_delay 10|vrrp_garp_master_repeat 1|vrrp_garp_lower_prio_delay 10|\
    vrrp_down_timer_adverts 2|vrrp_garp_lower_prio_repeat 1|vrrp_garp_master_refresh 60|vrrp_garp_master_refresh_repeat 2|vrrp_garp_interval 0.001|\
    vrrp_gna_interval 0.001|vrrp_min_garp|vrrp_garp_extra_if 100|vrrp_lower_prio_no_advert|vrrp_higher_prio_send_advert|nftables|nftables_priority 1|\
    nftables_counters|nftables_ifindex|nftables_ipvs|nftables_ipvs_priority 1|nftables_ipvs_start_fwmark 1|vrrp_iptables|vrrp_ipsets|disable_local_igmp|\
    vrrp_check_unicast_src|vrrp_skip_check_adv_addr|vrrp_strict|vrrp_notify_priority_changes on|max_auto_priority 9|min_auto_priority_delay 9|vrrp_priority -20|\
    checker_priority 1|bfd_priority 1|vrrp_no_swap|checker_no_swap|bfd_no_swap|vrrp_cpu_affinity 1|checker_cpu_affinity 1|bfd_cpu_affinity 1|vrrp_rt_priority 9|\
    checker_rt_priority 9|bfd_rt_priority 9|vrrp_rlimit_rttime 9|checker_rlimit_rttime 9|bfd_rlimit_rttime 9|snmp_socket x|enable_snmp_vrrp|enable_snmp_checker|\
    enable_snmp_rfc|enable_snmp_rfcv2|enable_snmp_rfcv3|enable_traps|enable_dbus|dbus_service_name x|script_user x|enable_script_security|notify_fifo x|\
    notify_fifo_script x|vrrp_notify_fifo x|vrrp_notify_fifo_script x|lvs_notify_fifo x|lvs_notify_fifo_script x|fifo_write_vrrp_states_on_reload|\
    dynamic_interfaces allow_if_changes|vrrp_netlink_cmd_rcv_bufs 9|vrrp_netlink_cmd_rcv_bufs_force on|vrrp_netlink_monitor_rcv_bufs 9|\
    vrrp_netlink_monitor_rcv_bufs_force on|lvs_netlink_cmd_rcv_bufs 9|lvs_netlink_cmd_rcv_bufs_force on|lvs_netlink_monitor_rcv_bufs 9|\
    lvs_netlink_monitor_rcv_bufs_force on|process_monitor_rcv_bufs 9|process_monitor_rcv_bufs_force on|vrrp_rx_bufs_policy MTU|vrrp_rx_bufs_multiplier 3|\
    rs_init_notifies|no_checker_emails|umask 022|vrrp_startup_delay 5.5|log_unknown_vrids|vmac_prefix x|vmac_addr_prefix x|random_seed 1|reload_check_config|\
    include_check|reload_time_file /x|reload_repeat|reload_file|data_use_instance|unheard_of";

/// At the top of the file.
const TOP: &str = "net_namespace x|net_namespace_ipvs x|namespace_with_ipsets|instance x|use_pid_dir|linkbeat_use_polling|child_wait_time 5|\
    linkbeat_interfaces {\neth1\n}|track_group x {\ngroup { A }\n}|static_ipaddress {\n10.0.0.1\n}|static_routes {\n10.0.0.1\n}|static_rules {\nx\n}|\
    track_file x {\nfile /x\n}|vrrp_track_file x {\nfile /x\n}|vrrp_track_process x {\nprocess x\n}|bfd_instance x {\nneighbor_ip 10.0.0.1\n}|\
    vrrp_script x {\nscript /x\n}|vrrp_sync_group x {\ngroup { VI_1 }\n}|garp_group {\ninterface eth0\n}|interface_up_down_delays {\neth0 5\n}|\
    virtual_server_group x {\n10.0.0.1 80\n}|virtual_server 10.0.0.1 80 {\ndelay_loop 5\n}|SSL {\npassword x\n}|unheard_of x";

#[test]
fn every_keyword_of_an_instance_leaves_a_trace() {
    let plain = with("");
    for statement in INSTANCE.split('|') {
        assert_ne!(with(statement), plain, "{statement}");
    }
}

#[test]
fn every_keyword_of_global_defs_leaves_a_trace() {
    let global = |statement: &str| with(&format!("}}\nglobal_defs {{\n{statement}"));
    let plain = global("");
    for statement in GLOBAL.split('|') {
        assert_ne!(global(statement), plain, "{statement}");
    }
}

#[test]
fn every_keyword_at_the_top_leaves_a_trace() {
    let top = |statement: &str| with(&format!("}}\n{statement}\nglobal_defs {{"));
    let plain = top("");
    for statement in TOP.split('|') {
        assert_ne!(top(statement), plain, "{statement}");
    }
}
