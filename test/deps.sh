#!/bin/sh
# Installs the Debian packages that tests and lab call, if they are not there.
# Without root it uses sudo.
set -eu
missing=
need() { # need PACKAGE FILE
	[ -e "$2" ] || missing="$missing $1"
}
need haproxy /usr/sbin/haproxy
need keepalived /usr/sbin/keepalived
need openssh-server /usr/sbin/sshd
need openssh-client /usr/bin/ssh
need openssh-sftp-server /usr/lib/openssh/sftp-server
need lxc /usr/bin/lxc-start
need vagrant /usr/bin/vagrant
need vagrant-lxc /usr/share/rubygems-integration/all/gems/vagrant-lxc-1.4.3
need mmdebstrap /usr/bin/mmdebstrap
need iproute2 /sbin/ip
need iptables /usr/sbin/iptables
need rsync /usr/bin/rsync
need openssl /usr/bin/openssl
need sudo /usr/bin/sudo
need strace /usr/bin/strace
need util-linux /usr/bin/nsenter
# Only the tests of the report's page need a browser, and not every
# distribution has this one.
[ "${1:-}" != browser ] || need chromium /usr/bin/chromium
# flannel, of the lab's software, compiles with cgo only.
need gcc /usr/bin/gcc
need libc6-dev /usr/include/stdio.h
[ -n "$missing" ] || exit 0

root=
[ "$(id -u)" = 0 ] || root=sudo
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
$root apt-get update -qq
# The tests start what they need themselves; a service of the package's own
# would take ports.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' | $root tee "$policy" >/dev/null
	$root chmod 755 "$policy"
	trap '$root rm -f "$policy"' EXIT
fi
# shellcheck disable=SC2086
$root apt-get install -y -qq --no-install-recommends $missing >/dev/null
