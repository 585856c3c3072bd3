#!/usr/bin/env bash
# Evaluates compressors on clips made here, with the trained miniature of scripts/nano, and compares them in a table.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: bash scripts/demo.sh

Installs the project into .venv where needed (scripts/setup.sh), makes H.264 clips with eight questions each that the
miniature Video LLM in scripts/nano/checkpoint has never seen, evaluates each compressor through lmms-eval on two
processes, and prints tokens, accuracy and time. Takes under four minutes on two CPU cores after the installation.
All output is written to demo/. It replaces the output of an earlier demo, but refuses a folder demo/ of another origin.
TEXT
}

case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  "") ;;
  *) usage >&2; exit 2 ;;
esac

num_clips=24
max_frames=16
runs=( # name, compressor, its options
  'bilinear|bilinear|{}' # the checkpoint's own pooling
  'average|average|{}'
  'average_ceil|average|{"ceil_mode":true}'
  'st_gridpool|st_gridpool|{}'
  'gridpool_ceil|st_gridpool|{"ceil_mode":true}'
  'sttm|sttm|{"retention":0.5}' # inside the language model, behind the checkpoint's own pooling
  'both|st_gridpool+sttm|{"sttm":{"retention":0.5}}'
)

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$root/.venv/bin/python"
demo="$root/demo"
marker="$demo/.made_by_stgridpool"
if [[ ! -f "$marker" && -n "$(ls -A "$demo" 2>/dev/null)" ]]; then
  echo "demo.sh: $demo holds files that no demo made: move them away, or create $marker if they may be replaced" >&2
  exit 1
fi
mkdir -p "$demo"
touch "$marker"
bash "$root/scripts/setup.sh"
rm -rf "$demo/data" "$demo/runs" "$demo/cache" "$demo/native"
cd "$demo" # custom_tasks/videomme_local.yaml reads data/videomme in the working directory
export HF_HOME="$demo/cache" HF_HUB_OFFLINE=1

"$python" "$root/scripts/nano/make_data.py" data --clips "$num_clips" --needles 1
folders=()
for run in "${runs[@]}"; do
  IFS='|' read -r name compressor options <<<"$run"
  echo "demo.sh: evaluating $name; messages in demo/$name.log" >&2
  bash "$root/scripts/evaluate.sh" --output "runs/$name" videomme_local "$root/scripts/nano/checkpoint" "$compressor" 2 \
    "max_frames_num=$max_frames" "compressor_args=$options" </dev/null >"$name.log" 2>&1 || { cat "$name.log" >&2; exit 1; }
  folders+=("runs/$name")
done
"$python" "$root/scripts/compare_runs.py" "${folders[@]}"
"$python" "$root/scripts/convert_checkpoint.py" "$root/scripts/nano/checkpoint" native 2>native.log >&2 || { cat native.log >&2; exit 1; }
"$python" "$root/scripts/nano/evaluate.py" --data data --checkpoint native --frames "$max_frames" --no-controls --limit 8 \
  --methods 'bilinear (own)' 'st_gridpool released' 2>>native.log
cat <<'TEXT'

The last table is about the same weights as a LlavaOnevisionForConditionalGeneration of transformers, inside
stgridpool.compress, on eight of the clips.
The weights are those of the miniature in scripts/nano: trained here, on clips of this kind, to answer these eight kinds
of question. Its answers depend on what it sees, so a compressor that loses something loses points. Rankings on it say
nothing about real models. ceil: windows that reach over the edge of the frame are kept, so that the last row and column
of patches are seen. sttm and both: half of the tokens that the language model gets are merged at its layer 2.
TEXT
