#!/usr/bin/env bash
# Sets up and runs the tests.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: bash scripts/test.sh [PYTEST_ARGUMENT...]

Installs the project into .venv where needed (scripts/setup.sh), then runs all tests from the repository's root, a file
at a time on each of up to four cores. Arguments go to pytest, which then runs on one: `bash scripts/test.sh -m "not slow"`
leaves out those that start real lmms-eval processes or take as long, `bash scripts/test.sh tests/stgridpool -k nsp` picks some. Needs no network after the installation, and no accelerator.
TEXT
}

case "${1:-}" in -h | --help) usage; exit 0 ;; esac

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$root/scripts/setup.sh"
cd "$root"
# The tests' tensors are small: more threads than one only wait for each other, the more so where a test starts processes.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# Compile every module once, not in each of the many processes.
unset PYTHONDONTWRITEBYTECODE
(($#)) || set -- --numprocesses auto --maxprocesses 4 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder
exec .venv/bin/python -m pytest "$@"
