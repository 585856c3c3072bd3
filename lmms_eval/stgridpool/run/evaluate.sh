#!/usr/bin/env bash
# Evaluates a checkpoint on a task through lmms-eval, on one or several processes.
# scripts/evaluate.sh and the command `stgridpool eval` call it, with three options before the user's:
#   --name NAME --python PYTHON --runs FOLDER
set -euo pipefail

(($# >= 6)) && [[ "$1 $3 $5" == "--name --python --runs" ]] || {
  echo "evaluate.sh: start scripts/evaluate.sh or stgridpool eval instead" >&2
  exit 2
}
name="$2" python="$4" runs="$6"
shift 6

usage() {
  cat <<'TEXT'
Usage: bash scripts/evaluate.sh [OPTION...] TASK [MODEL] [COMPRESSOR] [NUM_PROCESSES] [KEY=VALUE...] [-- LMMS_EVAL_OPTION...]

  TASK            a task of lmms-eval (videomme, longvideobench_val_v, ...) or of custom_tasks/ (videomme_local, ...),
                  or your own table (clips.csv)
  MODEL           folder or Hugging Face name of the checkpoint (default lmms-lab/LLaVA-Video-7B-Qwen2), in
                  LLaVA-NeXT's format (llava_video runs it) or of a native model of transformers (video_hf runs it)
  COMPRESSOR      st_gridpool (default), nsp, ptg, sttm, st_gridpool+sttm, none, average, bilinear, max
                  or another one that `stgridpool methods` lists
  NUM_PROCESSES   default: the number of visible GPUs, or 1. On a machine without GPUs the processes share the CPU.
  KEY=VALUE       further arguments of the model: max_frames_num=32 torch_dtype=bfloat16 mm_newline_position=no_token ...
  -- ...          further options of lmms-eval: -- --limit 20 --verbosity DEBUG

Options:
  --output FOLDER where the results go (default logs/runs/TASK/COMPRESSOR_KEY=VALUE_... in the repository)
  --include_path FOLDER
                  a folder of further task files
  --launch "..."  further options of accelerate launch, as in a shell; NUM_PROCESSES counts all machines
                  --launch "--num_machines 2 --machine_rank 0 --main_process_ip 10.0.0.1 --main_process_port 29500"

A run that was stopped, however it was, resumes where it stopped when the same command is given again: every answer is
kept in FOLDER/answers as soon as it is known. Remove that folder to ask every question again.

Example: bash scripts/evaluate.sh videomme_local lmms-lab/LLaVA-Video-7B-Qwen2 st_gridpool 8 max_frames_num=64

Relative paths, also those in custom_tasks/*.yaml, start at the working directory. HF_HOME, where lmms-eval's own tasks
look for videos, is set to ~/.cache/huggingface where it is unset. Ends with a non-zero status unless results were written
and most questions could be answered (max_failed=0.5); the last line says which. Everything that can be checked is checked
before anything is loaded. When this script ends, also by kill -9, its processes end with it.
TEXT
}

fail() {
  echo "$name: $1" >&2
  exit "${2:-1}"
}

output=""
include_path=""
launch=""
positional=()
model_args=""
named=() # arguments of the model
while (($#)); do
  case "$1" in
    -h | --help) usage; exit 0 ;;
    --output) (($# > 1)) && [[ "$2" =~ [^[:space:]] ]] || fail "--output needs a folder" 2; output="$2"; shift ;;
    --include_path | --include-path) (($# > 1)) && [[ -n "$2" ]] || fail "--include_path needs a folder" 2; include_path="$2"; shift ;;
    --launch) (($# > 1)) || fail "--launch needs options" 2; launch="$2"; shift ;;
    --) shift; break ;;
    "") fail "an argument is empty; is it a shell variable that is not set?" 2 ;;
    -*) fail "unknown option $1; options of lmms-eval go after --" 2 ;;
    *=*) model_args+=",$1"; named+=("$1") ;;
    *) positional+=("$1") ;;
  esac
  shift
done
((${#positional[@]} >= 1 && ${#positional[@]} <= 4)) || { usage >&2; exit 2; }

task="${positional[0]}"
model="${positional[1]:-lmms-lab/LLaVA-Video-7B-Qwen2}"
compressor="${positional[2]:-st_gridpool}"
export HF_HOME="${HF_HOME:-$HOME/.cache/huggingface}"
trap 'fail "stopped by SIGINT before anything was loaded" 130' INT
checked="$("$python" -m lmms_eval_stgridpool.run.check_command "$name" --launch="$launch" --include_path="$include_path" \
  --processes="${positional[3]:-}" --runs="$runs" --output="$output" "$task" "$model" "$compressor" "${named[@]}" -- "$@")" || exit
mapfile -t facts <<<"$checked"
num_gpus="${facts[0]}" class="${facts[1]}" task="${facts[2]}" include_path="${facts[3]}" output="${facts[4]}"
launch_options=("${facts[@]:5}")
num_processes="${positional[3]:-$((num_gpus > 0 ? num_gpus : 1))}"

command=("$python" -m lmms_eval_stgridpool.run.quiet_launch "" --num_machines 1 --num_processes "$num_processes"
  --mixed_precision no --dynamo_backend no --main_process_port 0 --quiet) # port 0: any free one
((num_processes == 1)) || command+=(--multi_gpu)
command+=("${launch_options[@]}") # last, as the last of several values counts
((num_gpus > 0)) || export ACCELERATE_USE_CPU=true # without it, accelerate starts a single process on the CPU

# The run has its own process group. A guard ends it if this script dies without notifying the guard, even by kill -9.
runs() { # whether a process of a group runs; one that has ended may stay in it for long, as nobody asks for its status
  kill -0 -- "-$1" || return 1
  [[ -r /proc/self/stat ]] || return 0
  local file stat
  for file in /proc/[0-9]*/stat; do
    stat=""
    read -r -d '' stat <"$file" || true
    [[ ! "${stat##*) }" =~ ^[^ZX]\ [0-9]+\ "$1"\  ]] || return 0 # state, parent and group
  done
  return 1
}
end_group() {
  kill -TERM -- "-$1" || return 0
  for ((tenths = 0; tenths < 50; tenths++)); do
    runs "$1" || return 0
    sleep 0.1
  done
  kill -KILL -- "-$1" || true
}
guard() {
  trap '' INT TERM HUP
  read -r && return
  end_group "$1"
}
run=""
stop() { # ends the run first, so that nothing follows the last line
  [[ -z "$run" ]] || end_group "$run" 2>/dev/null
  fail "stopped by SIG$1: all answers so far are kept in $answers; give the same command again to resume" "$((128 + $(kill -l "$1")))"
}

answers="$output/answers"
for argument in "${named[@]}"; do
  [[ "$argument" != resume_dir=* ]] || answers="${argument#*=}"
done
[[ "$model_args" == *,resume_dir=* ]] || model_args=",resume_dir=$answers$model_args"
mkdir -p "$output"
exec {lock}<"$output"
# The machines of one run share a folder. Status 1: taken; others: no locks there.
if [[ ! "${launch_options[*]}" =~ --machine_rank[=\ ][1-9] ]] && command -v flock >/dev/null; then
  flock --nonblock "$lock" || (($? != 1)) ||
    fail "another run is writing to $output: wait until it has ended, or pass another folder with --output"
fi
started="$(mktemp)"
cause="$output/.cause_of_failure" # the ranks add lines
: >"$cause"
trap 'rm -f "$started" "$cause"' EXIT
for signal in HUP INT TERM; do
  trap "stop $signal" "$signal"
done
set -m
"${command[@]}" -m lmms_eval --model "$class" \
  --model_args "pretrained=$model,compressor=$compressor$model_args" \
  --tasks "$task" --batch_size 1 --log_samples --output_path "$output" "$@" --include_path "$include_path" &
run=$!
coproc GUARD { guard "$run" 2>/dev/null; }
set +m
status=0
wait "$run" || status=$?
echo >&"${GUARD[1]}"

# lmms-eval ends with status 0 also where the evaluation failed: only the results file tells.
mapfile -t results < <(find "$output" -name '*_results.json' -newer "$started")
note=""
for file in "${results[@]}"; do
  note="$("$python" -c '
import json, sys
marks = json.load(open(sys.argv[1], encoding="utf-8"))
unanswered = marks.get("unanswered")
print(marks.get("run_failed") or (unanswered and "{questions} of {of} questions could not be answered".format(**unanswered)) or "")
' "$file")"
  [[ "$note" != "the run failed"* ]] || fail "$note; marked results in $file" "$((status ? status : 1))"
done
reason=""
read -r reason <"$cause" || true
((status == 0)) || fail "the run ended with status $status: ${reason:-its messages above say why}" "$status"
[[ ! "${launch_options[*]}" =~ --machine_rank[=\ ][1-9] ]] || exit 0 # the first machine writes the results
((${#results[@]})) || fail "the run wrote no results below $output: ${reason:-its messages above say why}"
printf '%s: results in %s\n' "$name" "${results[*]}${note:+; $note}"
