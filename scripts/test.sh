#!/usr/bin/env bash
# Sets this tree up where needed and runs its tests: scripts/test.sh [pytest arguments; paths are relative to the tree].
set -euo pipefail
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/setup.sh"

setup_tree test
cd -- "$HVD_ROOT"

# Temporary files get a short path of their own (a Unix socket's path ends at 108 bytes), kept only where something failed.
scratch=$(mktemp -d /tmp/hvd-test.XXXXXX)
status=1
clean_up() {
    if [ "$status" = 1 ]; then say "temporary files are kept in $scratch"; else rm -rf -- "$scratch"; fi
}
trap clean_up EXIT

cache=$HVD_ROOT/build
[ -w "$cache" ] || cache=$scratch # a tree that someone else set up
unset PYTHONDONTWRITEBYTECODE # it is written below build/: where every process compiles hvd anew, each takes three times as long
export HVD_XEN_UTILS TMPDIR=$scratch PYTHONPYCACHEPREFIX=$cache/pycache HYPOTHESIS_STORAGE_DIRECTORY=$cache/hypothesis
export HVD_TEST_SESSION=${HVD_TEST_SESSION:-$(cat /proc/sys/kernel/random/uuid)}
"$HVD_PYTHON" -m pytest -n auto --dist worksteal -o cache_dir="$cache/pytest" "$@" && status=0 || status=$?
exit "$status"
