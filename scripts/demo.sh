#!/usr/bin/env bash
# One command from a clone to the whole story: sets up what it needs, boots the cockpit cluster, measures it, kills it, checks it.
#
#   scripts/demo.sh [--json FILE] [--kills N]
#
# As root it installs the Debian packages it lacks and says what each is for; without root it uses what is there, or prints
# the exact line to type and ends with 3. Ends with 1 when something acknowledged was lost or the cluster did not come back.
set -euo pipefail
# shellcheck source=scripts/setup.sh
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/setup.sh"
setup_tree test
# Where Python is told not to write bytecode every `hvd` would compile itself anew: 0.2 s of each boot.
"$HVD_PYTHON" -m compileall -q "$HVD_ROOT"/{hvd,domains,transport} || say "bytecode cannot be written here; boots take 0.2 s longer"
exec "$HVD_PYTHON" "$HVD_ROOT/scripts/demo.py" "$@"
