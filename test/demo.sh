#!/usr/bin/env bash
# The main job, as a new user does it: bare hosts to a verified cluster, and a
# look around. `make demo` builds the program and brings the lab up before.
set -euo pipefail
cd "$(dirname "$0")/.."
lab=${HA_INSTALL_LAB_DIR:-.lab}
inventory=$lab/inventory.yaml
kubeconfig=$lab/kubeconfig

show() {
	printf '\n\033[1m$ %s\033[0m\n' "$*"
	"$@"
}

show bin/ha-install validate "$inventory"
show bin/ha-install apply --yes "$inventory"
show bin/ha-install status "$inventory"
show bin/ha-install kubeconfig "$inventory" --file "$kubeconfig"
if command -v kubectl >/dev/null; then
	show kubectl --kubeconfig "$kubeconfig" get nodes -o wide
else
	# The masters have kubectl; the operator's machine needs none.
	printf '\n\033[1m$ kubectl get nodes -o wide\033[0m   (on cp-1)\n'
	go run ./test/lab/cmd/lab ssh cp-1 sudo kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes -o wide
fi

cat <<END

The cluster is up. Look around:
  bin/ha-install status $inventory
  make lab-ssh HOST=cp-1
  sudo lxc-stop -k -n ha-lab-cp-2          power a master off; then: status
  sudo lxc-start -n ha-lab-cp-2            and on again
Take it down:
  bin/ha-install reset $inventory --confirm lab     only the cluster
  make lab-down                                     the hosts too
END
