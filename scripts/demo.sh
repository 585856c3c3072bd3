#!/usr/bin/env bash
# Evaluates compressors on clips made here, with the trained miniature of scripts/nano, and compares them in a table.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: bash scripts/demo.sh

Installs the project into .venv where needed (scripts/setup.sh), makes H.264 clips with eight questions each that the
miniature Video LLM in scripts/nano/checkpoint has never seen, evaluates six compressors at two equal budgets through
lmms-eval on two processes, prints tokens, accuracy and time, and writes two pages about them. Takes about two minutes
on two CPU cores after the installation; it says which step it is at, and the longest one, which asks the questions, how
much time it has left.
All output is written to demo/. It replaces the output of an earlier demo, but refuses a folder demo/ of another origin.
TEXT
}

case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  "") ;;
  *) usage >&2; exit 2 ;;
esac

num_clips=16
max_frames=16
# 9 and 4 of the 16 tokens per frame that the checkpoint's own pooling leaves: windows of 2x2 and 3x3, so that those that
# pool in whole windows meet them exactly, too.
budgets=(--retention 0.5625 --retention 0.25)
# All of them before the language model; the paper runs sttm there with its 72B models.
compressors=(bilinear st_gridpool random downsample visionzip 'sttm:{"layer":0}')

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$root/.venv/bin/python"
demo="$root/demo"
marker="$demo/.made_by_stgridpool"
if [[ ! -f "$marker" && -n "$(ls -A "$demo" 2>/dev/null)" ]]; then
  echo "demo.sh: $demo holds files that no demo made: move them away, or create $marker if they may be replaced" >&2
  exit 1
fi

# step TEXT COMMAND...: run a command with its messages in demo/steps.log; progress and time left go to the terminal.
step() {
  echo "demo.sh: $1 (${SECONDS} s so far; messages in demo/steps.log)" >&2
  shift
  local status=0
  "$@" 2> >(tee -a steps.log | grep --line-buffered -oE '(Answering|Scored): .*' >&2) || status=$?
  ((status == 0)) || { cat steps.log >&2; exit "$status"; }
}

pages() {
  "$python" -m lmms_eval_stgridpool.cli report runs --baseline uncompressed --output report.html
  "$python" -m lmms_eval_stgridpool.cli show data/videomme/data/nano0000.mp4 --frames "$max_frames" --retention 0.5625 \
    --checkpoint "$root/scripts/nano/checkpoint" -c st_gridpool -c visionzip -c 'sttm:{"layer":0}' --output provenance.html
}

mkdir -p "$demo"
touch "$marker"
bash "$root/scripts/setup.sh"
rm -rf "$demo/data" "$demo/runs" "$demo/cache" "$demo/native"
cd "$demo" # custom_tasks/videomme_local.yaml reads data/videomme in the working directory
: >steps.log
export HF_HOME="$demo/cache" HF_HUB_OFFLINE=1

step "1 of 5: making $num_clips clips" "$python" "$root/scripts/nano/make_data.py" data --clips "$num_clips" --needles 1
step "2 of 5: asking 8 questions about each clip, with the checkpoint as it is and 6 compressors at 2 budgets" \
  "$python" -m lmms_eval_stgridpool.cli sweep "${compressors[@]}" "${budgets[@]}" --uncompressed --processes 2 \
  --tasks videomme_local --model_args "pretrained=$root/scripts/nano/checkpoint,max_frames_num=$max_frames" \
  --output_path runs </dev/null
step "3 of 5: converting the checkpoint to transformers' own format" \
  "$python" "$root/scripts/convert_checkpoint.py" "$root/scripts/nano/checkpoint" native >>steps.log
step "4 of 5: asking the converted model about 4 clips" \
  "$python" "$root/scripts/nano/evaluate.py" --data data --checkpoint native --frames "$max_frames" --no-controls \
  --limit 4 --methods 'bilinear (own)' 'st_gridpool released'
step "5 of 5: writing pages about the runs, and about where tokens of one clip came from" pages >>steps.log
cat <<TEXT

The last table is about the same weights as a LlavaOnevisionForConditionalGeneration of transformers, inside
stgridpool.compress, on four of the clips. The demo took $SECONDS seconds, and wrote two pages:
  $demo/report.html: differences with intervals, kinds of questions, accuracy over tokens and seconds
  $demo/provenance.html: where every token of a clip came from, for three methods

What the first table shows: all methods at equal numbers of tokens, 9 and 4 per frame of the 16 that the checkpoint's own
pooling leaves ("uncompressed"), in every layer; sttm's are counted before it merges them, so that only its retention
shows it. "random" is what any method must beat. The miniature in scripts/nano was trained here, on clips of this kind, to
answer these eight kinds of question: its answers depend on what it sees, so a compressor that loses something loses
points.
What it cannot show: how the methods rank on real models and videos. The miniature was trained on tokens that its own
pooling makes, 7x7 patches are few for methods that choose among them, and intervals over $num_clips clips are wide.
TEXT
