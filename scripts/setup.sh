#!/usr/bin/env bash
# Makes .venv in the repository and installs this project into it.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: bash scripts/setup.sh

Makes .venv in the repository with Python 3.11 or later and installs this project into it, editable, with its
development tools. Does nothing where that was done before and pyproject.toml has not changed since. An environment
that an interrupted run left half made is made anew. The first run takes minutes and about 7 GB.
TEXT
}

case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  "") ;;
  *) usage >&2; exit 2 ;;
esac

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"
stamp="$venv/installed"       # holds what was installed; written last
unfinished="$venv/unfinished" # is there while an installation runs

fingerprint() { # the project's folder, since an editable install points to it, and what pyproject.toml says
  printf '%s\n' "$root"
  cksum <"$root/pyproject.toml"
}

find_python() {
  local name
  for name in python3 python python3.14 python3.13 python3.12 python3.11; do
    if "$name" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  echo "setup.sh: Python 3.11 or later (with its venv module) is needed, and none was found on the PATH." >&2
  return 1
}

if command -v flock >/dev/null; then # two set-ups at once take turns
  exec 9<"$root"
  flock 9
fi
if [[ -f "$stamp" && ! -e "$unfinished" && "$(cat "$stamp")" == "$(fingerprint)" ]] && "$venv/bin/python" -c '' 2>/dev/null; then
  exit 0
fi

if [[ -e "$unfinished" ]] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  echo "setup.sh: making $venv" >&2
  python="$(find_python)"
  "$python" -m venv --clear "$venv"
  touch "$unfinished"
  "$venv/bin/python" -m pip install --quiet --upgrade pip # the one that Python brings resolves slowly
fi
touch "$unfinished"
echo "setup.sh: installing stgridpool and its dependencies; this takes minutes the first time" >&2
(cd "$root" && "$venv/bin/python" -m pip install --quiet --editable '.[dev]')
fingerprint >"$stamp"
rm "$unfinished"
