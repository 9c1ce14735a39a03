#!/bin/bash
# Sends UDP packets of many flows by the kernel's packet generator (pktgen), as for bench/throughput on real NICs.
#
#   send.sh -i eth1 -m 02:00:00:00:00:01 -d 10.0.0.50 [-p 80] [-s 60] [-f 1024] [-t 1] [-r 0] [-n 10000000] [-b 32]
#
#   -i  interface to send from           -m  MAC of the node, or of the router before it
#   -d  destination: the VIP             -p  its UDP port
#   -s  bytes of a frame, without FCS    -f  flows per thread: client addresses from 10.9.0.0 on
#   -t  threads, each with a queue and a CPU of its own, from 0 on
#   -r  packets per second and thread, 0 = as many as can be sent
#   -n  packets per thread, 0 = until Ctrl-C
#   -b  packets between two doorbells of the NIC (burst); 1 for veth and virtio
#
# What was sent is printed per thread. What arrived is for the receiver to count: `ip -s link`, `ethtool -S`, or
# `vip-agent status --json` (services[].packets) on the node.
set -euo pipefail

interface= mac= destination= port=80 size=60 flows=1024 threads=1 rate=0 count=10000000 burst=32
while getopts i:m:d:p:s:f:t:r:n:b: option; do
    case $option in
        i) interface=$OPTARG ;; m) mac=$OPTARG ;; d) destination=$OPTARG ;; p) port=$OPTARG ;;
        s) size=$OPTARG ;; f) flows=$OPTARG ;; t) threads=$OPTARG ;; r) rate=$OPTARG ;;
        n) count=$OPTARG ;; b) burst=$OPTARG ;;
        *) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2; exit 2 ;;
    esac
done
for needed in interface mac destination; do
    [ -n "${!needed}" ] || { echo "$0: -${needed:0:1} is missing (see the head of this file)" >&2; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "$0: pktgen is root's" >&2; exit 1; }
[ -d /proc/net/pktgen ] || modprobe pktgen 2>/dev/null || {
    echo "$0: this kernel has no pktgen (CONFIG_NET_PKTGEN)" >&2
    exit 1
}

# Writes one command, and shows what the kernel says if it does not like it.
pg() {
    local file=/proc/net/pktgen/$1
    shift
    echo "$*" >"$file"
    local result
    result=$(grep '^Result:' "$file" || true)
    case $result in
        '' | 'Result: OK'* | 'Result: NA'*) ;;
        *) echo "pktgen: $*: $result" >&2; exit 1 ;;
    esac
}

stop() { echo stop >/proc/net/pktgen/pgctrl 2>/dev/null || true; }
trap stop INT TERM

echo reset >/proc/net/pktgen/pgctrl
for ((thread = 0; thread < threads; thread++)); do
    device=$interface@$thread
    pg kpktgend_$thread rem_device_all
    pg kpktgend_$thread add_device "$device"
    pg "$device" count "$count"
    pg "$device" pkt_size "$size"
    pg "$device" delay 0
    [ "$rate" = 0 ] || pg "$device" ratep "$rate"
    pg "$device" burst "$burst"
    pg "$device" queue_map_min $thread
    pg "$device" queue_map_max $thread
    pg "$device" dst_mac "$mac"
    case $destination in
        *:*) pg "$device" dst6 "$destination"; pg "$device" src6 fd00:9::$thread ;;
        *)
            pg "$device" dst_min "$destination"
            pg "$device" dst_max "$destination"
            pg "$device" src_min 10.9.$((thread * 16)).0
            last=$((flows - 1))
            pg "$device" src_max 10.9.$((thread * 16 + last / 256 % 240)).$((last % 256))
            ;;
    esac
    # Each flow one packet after the other, as the generator of bench/throughput does.
    pg "$device" udp_dst_min "$port"
    pg "$device" udp_dst_max "$port"
    pg "$device" udp_src_min 32768
    pg "$device" udp_src_max 32768
done

# Returns when all threads have sent their packets.
echo start >/proc/net/pktgen/pgctrl
for ((thread = 0; thread < threads; thread++)); do
    sed -n "s/^ *\([0-9]*pps .*\)/thread $thread: \1/p; s/^Result: OK: \(.*\)/thread $thread: \1/p" "/proc/net/pktgen/$interface@$thread"
done
