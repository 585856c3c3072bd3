#!/usr/bin/env bash
# Pins today's newest versions in constraints.txt and runs the suite on them.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: bash scripts/update_constraints.sh

Asks the package index for the newest versions that pyproject.toml and our dependencies allow each other, writes them to
constraints.txt, installs them into .venv (scripts/setup.sh) and runs all tests. Fails where the tests do: then bound what
broke in pyproject.toml, with the reason, or go back with `git checkout constraints.txt`.
TEXT
}

case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  "") ;;
  *) usage >&2; exit 2 ;;
esac

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
bash scripts/setup.sh # for its pip
new="$(mktemp)"
trap 'rm "$new"' EXIT
echo "update_constraints.sh: asking the index; this takes minutes" >&2
.venv/bin/python scripts/try_versions.py resolve >"$new"
cp "$new" constraints.txt
git diff --stat -- constraints.txt
exec bash scripts/test.sh
