#!/usr/bin/env bash
# Fuzzes hvd's parsers, rings and codecs, guided by coverage: scripts/fuzz.sh TARGET...|all [--seconds N]; --help says more.
#
# As root it installs clang and libFuzzer where they are missing; without root it uses what is there. docs/fuzzing.md describes
# the targets. Exit status 0: nothing was found; 1: something was; 2: bad input; 3: this machine lacks the engine.
set -euo pipefail
# shellcheck source=scripts/setup.sh
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/setup.sh"
setup_tree fuzz
exec "$HVD_PYTHON" "$HVD_ROOT/scripts/fuzz.py" "$@"
