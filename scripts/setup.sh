#!/usr/bin/env bash
# Makes .venv in the repository and installs this project into it.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: bash scripts/setup.sh

Makes .venv in the repository with Python 3.11 to 3.14 and installs this project into it, editable, with its
development tools, in the versions of constraints.txt. Does nothing where that was done before and neither pyproject.toml
nor constraints.txt has changed since. An environment that an interrupted run left incomplete is created again. The first run
takes minutes and about 7 GB.
TEXT
}

case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  "") ;;
  *) usage >&2; exit 2 ;;
esac

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"
constraints="$root/constraints.txt"
stamp="$venv/installed"       # holds what was installed; written last
unfinished="$venv/unfinished" # is there while an installation runs

fingerprint() { # the project's folder, since an editable install points to it, and what is asked for
  printf '%s\n' "$root"
  cat "$root/pyproject.toml" "$constraints" | cksum
}

find_python() {
  local name
  for name in python3 python python3.14 python3.13 python3.12 python3.11; do
    if "$name" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  echo "setup.sh: Python 3.11 to 3.14 (with its venv module) is needed, and none was found on the PATH." >&2
  return 1
}

install() { # install REQUIREMENT...: pip's warnings and errors pass; of its progress, a line every 20 s
  # Packages that come as source are built with the setuptools that is pinned, too.
  "$venv/bin/python" -m pip install --no-compile --constraint "$constraints" --build-constraint "$constraints" "$@" |
    {
      while true; do
        if IFS= read -r -t 20 line; then
          last="${line:-$last}"
        elif (($? <= 128)); then # the end; above 128, pip was silent for 20 s
          break
        fi
        if ((SECONDS >= next_line)); then
          echo "setup.sh: $SECONDS s: ${last:0:100}" >&2
          next_line=$((SECONDS + 20))
        fi
      done
      cat >/dev/null # an old bash takes silence for the end
    }
}

next_line=20
last="pip has begun"
if command -v flock >/dev/null; then # two set-ups at once take turns
  exec 9<"$root"
  flock 9
fi
if [[ -f "$stamp" && ! -e "$unfinished" && "$(cat "$stamp")" == "$(fingerprint)" ]] && "$venv/bin/python" -c '' 2>/dev/null; then
  exit 0
fi

if [[ -e "$unfinished" ]] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  if [[ ! -e "$stamp" && ! -e "$unfinished" && -n "$(ls -A "$venv" 2>/dev/null)" ]]; then
    echo "setup.sh: $venv has no working pip and was not made here: move it away, or create $unfinished to replace it" >&2
    exit 1
  fi
  echo "setup.sh: making $venv" >&2
  python="$(find_python)"
  mkdir -p "$venv"
  touch "$unfinished" # stays while the rest goes: what is half made must not be taken for somebody else's
  find "$venv/" -mindepth 1 -maxdepth 1 ! -name "${unfinished##*/}" -exec rm -rf {} +
  "$python" -m venv "$venv"
fi
touch "$unfinished"
echo "setup.sh: installing stgridpool and its dependencies; this takes minutes the first time" >&2
"$venv/bin/python" -m pip install --quiet --constraint "$constraints" --upgrade pip # Python's own resolves slowly
(cd "$root" && install --editable '.[dev]')
echo "setup.sh: $SECONDS s: compiling" >&2 # on all cores, where pip would take minutes on one
"$venv/bin/python" -m compileall -qq -j 0 "$venv/lib" || true # some packages ship files that are not for this Python
fingerprint >"$stamp"
rm "$unfinished"
