#!/usr/bin/env bash
# Runs a command in a network and a process namespace of its own, with nothing but the loopback. Root.
#
#   bash tests/bench/launch/apart.sh python -m pytest -m "slurm or ray"
#
# The clusters that these tests start listen on addresses, and leave processes behind when a test
# kills their parents; here nobody else is met, and nothing is left when the command ends.
set -euo pipefail
if [ "${LTROBUST_APART:-}" != 1 ]; then
    LTROBUST_APART=1 exec unshare --net --uts --pid --fork --kill-child --mount-proc bash "$0" "$@"
fi
hostname localhost  # a name that is known without a network
ip link set lo up
ip address add 192.0.2.1/32 dev lo  # names are looked up only where there is an address
"$@"
