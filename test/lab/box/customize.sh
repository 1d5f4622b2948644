#!/bin/sh
# Turns a minimal Debian tree into the lab's bare host. Usage: customize.sh ROOTFS
set -eu
root=$1

chroot "$root" useradd --create-home --uid 1000 --shell /bin/bash vagrant
install -d -m 0700 -o 1000 -g 1000 "$root/home/vagrant/.ssh"
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/vagrant"
chmod 0440 "$root/etc/sudoers.d/vagrant"

# Each host gets its own from the lab; a host without them must not make some up.
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/machine-id" "$root/var/lib/dbus/machine-id"
: >"$root/etc/machine-id"
printf 'UseDNS no\nHostKey /etc/ssh/ssh_host_ed25519_key\n' >"$root/etc/ssh/sshd_config.d/lab.conf"

# Hosts reach nothing but each other. The resolver is an address that refuses
# at once; a loopback one would send CoreDNS round in a circle.
rm -f "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/*
echo 'nameserver 198.51.100.1' >"$root/etc/resolv.conf"

# On a real host systemd makes / shared; in a container it does not, and the
# kubelet's volume mounts need it.
cat >"$root/etc/systemd/system/lab-shared-root.service" <<'UNIT'
[Unit]
Description=Make the root mount shared, as on a real host
DefaultDependencies=no
Before=sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/mount --make-rshared /
[Install]
WantedBy=sysinit.target
UNIT
chroot "$root" systemctl enable lab-shared-root.service ssh.service
# The machine's kernel log is not this host's; consoles and udev have nothing to serve.
mkdir -p "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nReadKMsg=no\nSystemMaxUse=64M\n' >"$root/etc/systemd/journald.conf.d/lab.conf"
chroot "$root" systemctl mask console-getty.service getty.target systemd-udevd.service \
  systemd-udevd-kernel.socket systemd-udevd-control.socket systemd-udev-trigger.service \
  systemd-logind.service sys-kernel-debug.mount sys-kernel-tracing.mount \
  e2scrub_reap.service e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer \
  dpkg-db-backup.timer fstrim.timer

rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* \
  "$root"/usr/share/man/* "$root"/usr/share/locale/* "$root"/usr/share/info/*
