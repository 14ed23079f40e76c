#!/usr/bin/env bash
# Sets this tree up where needed and reads it without running it: ruff, mypy --strict, import-linter.
set -uo pipefail
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/setup.sh"

setup_tree dev
cd -- "$HVD_ROOT" || exit

failed=()
check() { # check NAME COMMAND...: all of them run, so that one report holds everything
    say "$1"
    "${@:2}" || failed+=("$1")
}
check "ruff" "$HVD_PYTHON" -m ruff check
check "mypy, package" "$HVD_PYTHON" -m mypy
mapfile -d '' scripts < <(find scripts -name '*.py' -print0)
check "mypy, tests and scripts" env MYPYPATH=scripts "$HVD_PYTHON" -m mypy --explicit-package-bases tests "${scripts[@]}"
check "import-linter" "$HVD_VENV/bin/lint-imports" --no-logo --cache-dir build/import_linter

[ "${#failed[@]}" = 0 ] || { say "failed: ${failed[*]}"; exit 1; }
