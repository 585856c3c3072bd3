#!/usr/bin/env bash
# Evaluates a checkpoint on a task through lmms-eval, on one or several processes: --help says how.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$root/.venv/bin/python"
[[ -x "$python" ]] || python=python3
exec bash "$root/lmms_eval/stgridpool/run/evaluate.sh" --name evaluate.sh --python "$python" \
  --runs "$root/logs/runs" "$@"
