#!/usr/bin/env bash
# Evaluates two compressors on clips made here, with a small checkpoint made here, and compares them in a table.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: bash scripts/demo.sh

Installs the project into .venv where needed (scripts/setup.sh), makes a small LLaVA-Video checkpoint with random weights
and twelve short clips with three questions each, evaluates each compressor through lmms-eval on two processes, and
prints what a video costs under each. Takes under three minutes on two CPU cores after the installation. Everything it
makes lies in demo/, which is made anew.
TEXT
}

case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  "") ;;
  *) usage >&2; exit 2 ;;
esac

compressors=(bilinear st_gridpool)
max_frames=32 # from 32 frames on, every level of the pyramid takes part

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$root/scripts/setup.sh"
python="$root/.venv/bin/python"
demo="$root/demo"
rm -rf "$demo"
mkdir "$demo"
cd "$demo" # custom_tasks/videomme_local.yaml reads data/videomme in the working directory
export HF_HOME="$demo/cache" HF_HUB_OFFLINE=1

"$python" "$root/scripts/make_tiny_checkpoint.py" checkpoint
"$python" "$root/scripts/make_demo_data.py" data/videomme
for compressor in "${compressors[@]}"; do
  echo "demo.sh: evaluating $compressor; messages in demo/$compressor.log" >&2
  bash "$root/scripts/evaluate.sh" --output "runs/$compressor" videomme_local checkpoint "$compressor" 2 \
    "max_frames_num=$max_frames" </dev/null >"$compressor.log" 2>&1 || { cat "$compressor.log" >&2; exit 1; }
done
"$python" "$root/scripts/compare_runs.py" "${compressors[@]/#/runs/}"
cat <<'TEXT'

The weights are random: nothing was learnt, so the accuracy is chance (25 %), and its differences mean nothing.
What is real: the clips were decoded, sampled, encoded, compressed and asked about by the code that serves real
checkpoints, and the tokens are those a 27x27 grid gives.
TEXT
