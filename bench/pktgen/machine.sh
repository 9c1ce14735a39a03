#!/bin/bash
# Runs bench/throughput and send.sh in a virtual machine whose kernel has what this one may lack: pktgen and IPVS.
#
#   cargo xtask bench throughput -- --rounds 1     # builds what the machine runs
#   bench/pktgen/machine.sh [OPTIONS OF vip-throughput ...]
#
# Emulated (no KVM is needed), so only ratios mean something. Debian's kernel, ipvsadm and busybox are fetched by apt-get and
# unpacked, not installed; qemu-system-x86_64, ip, nft and bash are this host's. All of it goes to target/machine.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
profile=${PROFILE:-release}
work=$root/target/machine
programs=("$root/target/$profile/vip-throughput" "$root/target/$profile/vip-agent")
for needed in "${programs[@]}" "$root/target/bpf/vip-ebpf-bench"; do
    [ -e "$needed" ] || { echo "$0: $needed is missing: run \`cargo xtask bench throughput -- --rounds 1\` first" >&2; exit 1; }
done
command -v qemu-system-x86_64 >/dev/null || { echo "$0: no qemu-system-x86_64: \`apt install qemu-system-x86\`" >&2; exit 1; }

mkdir -p "$work/packages" "$work/root"
cd "$work/packages"
image=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
for package in "$image" ipvsadm libpopt0 libnl-3-200 libnl-genl-3-200 busybox-static; do
    ls "$package"_*.deb >/dev/null 2>&1 || apt-get -q download "$package"
    [ -e "$package.done" ] || { dpkg -x "$package"_*.deb "$work/unpacked" && touch "$package.done"; }
done
release=${image#linux-image-}

# What runs in it: each program with the libraries that it names.
rm -rf "${work:?}/root"
mkdir -p "$work/root"/{bin,usr/bin,dev,proc,sys,run,tmp,lib/modules,lib/x86_64-linux-gnu}
bring() {
    local from=$1 to=$work/root$2
    mkdir -p "$(dirname "$to")"
    cp -L "$from" "$to"
    { ldd "$from" 2>/dev/null || true; } | awk '/=> \// { print $3 } /^\t\// { print $1 }' | while read -r library; do
        mkdir -p "$work/root$(dirname "$library")"
        cp -Ln "$library" "$work/root$library" 2>/dev/null || true
    done
}
for program in bash ip nft; do
    bring "$(command -v $program)" "/usr/bin/$program"
done
bring "$work/unpacked/sbin/ipvsadm" /usr/bin/ipvsadm
cp -a "$work"/unpacked/{lib,usr/lib}/x86_64-linux-gnu/*.so* "$work/root/lib/x86_64-linux-gnu/"
bring "$work/unpacked/bin/busybox" /bin/busybox
for program in "${programs[@]}"; do
    bring "$program" "$program"
done
for object in "$root"/target/bpf/vip-ebpf*; do
    bring "$object" "$object"
done
mkdir -p "$work/root$root/bench/throughput"
bring "$here/send.sh" /usr/bin/send.sh
cp -r "$work/unpacked/lib/modules/$release" "$work/root/lib/modules/"
# Sound, graphics and file systems would only take memory.
rm -rf "$work/root/lib/modules/$release/kernel"/{sound,fs} "$work/root/lib/modules/$release/kernel/drivers"/{gpu,media,infiniband,scsi,staging,usb,iio}
"$work/unpacked/bin/busybox" depmod -b "$work/root" "$release"

cat >"$work/root/init" <<END
#!/usr/bin/bash
/bin/busybox --install -s /bin; ln -sf /usr/bin/bash /bin/bash
export PATH=/usr/bin:/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
ulimit -l unlimited
for module in crc32c_generic veth pktgen ip_vs ip_vs_rr nf_tables nft_chain_nat nft_nat; do
    modprobe \$module || echo "no module \$module"
done
uname -r
echo "== send.sh"
ip link add sender type veth peer name receiver
ip link set sender up; ip link set receiver up
bash /usr/bin/send.sh -i sender -m 02:00:00:00:00:01 -d 10.0.0.50 -n 100000 -b 1
echo "receiver \$(cat /sys/class/net/receiver/statistics/rx_packets) packets"
ip link del sender
echo "== vip-throughput"
$root/target/$profile/vip-throughput --output /run/bench $*
echo "== throughput.json"
cat /run/bench/throughput.json
echo
echo "== end"
poweroff -f
END
chmod +x "$work/root/init"
(cd "$work/root" && find . | "$work/unpacked/bin/busybox" cpio -o -H newc 2>/dev/null | gzip -1) >"$work/initramfs.gz"
qemu-system-x86_64 -m 2048 -smp 1 -nographic -no-reboot -kernel "$work/unpacked/boot/vmlinuz-$release" \
    -initrd "$work/initramfs.gz" -append "console=ttyS0 quiet panic=-1 mitigations=off" </dev/null | tr -d '\r' | tee "$work/log"
grep -q '^== end' "$work/log"
