"""Typical mistakes, and the last line that a run prints about each, before anything is loaded."""

from pathlib import Path

import pytest

from lmms_eval_stgridpool.run import check_command, checkpoint_checks
from mistakes import make_all, says

MINIATURE = str(Path(__file__).resolve().parents[4] / "scripts" / "nano" / "checkpoint")
NVILA = Path(__file__).resolve().parents[3] / "golden" / "nvila" / "ckpt-base"
HEAVY = ("torch._C", "transformers", "lmms_eval", "datasets", "pandas")


@pytest.fixture(autouse=True)
def _in_workplace(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(checkpoint_checks, "HF_HUB_OFFLINE", True)


def words(*arguments, task="videomme_local", model=MINIATURE, compressor="nsp", processes="", include="", launch=""):
    further = [f"--launch={launch}", f"--include_path={include}", f"--processes={processes}"]
    frames = [] if any(one.startswith("max_frames_num") for one in arguments) else ["max_frames_num=8"]
    return [*further, task, model, compressor, *frames, *arguments]


OUT_OF_RANGE = (
    "--limit must be a whole number of questions from 1 to 1000000000, a share of them above 0 and below 1, or -1 for "
    "all, got "
)
# "..." stands for any text. Lines that end with the names that are known are cut there.
MISTAKES = {
    "typo in the task": (
        words(task="videome_local"),
        "there is no task 'videome_local', did you mean 'videomme_local'? Tasks on disk: ...; others: python -m "
        "lmms_eval --tasks list",
    ),
    "one of two tasks": (words(task="videomme_local,mlvu"), "there is no task 'mlvu', did you mean ..."),
    "no folder of tasks": (
        words(include="no_tasks"),
        "--include_path no_tasks is not a folder in ...: name the folder of task files",
    ),
    "a task file that is not YAML": (
        words(include="broken_tasks", task="mine"),
        "broken_tasks/mine.yaml cannot be read as a task file: ...",
    ),
    "tasks of two folders": (
        words(include="tasks", task="mine,videomme_local"),
        "videomme_local ships with stgridpool and is not in --include_path tasks, and lmms-eval reads one folder only: "
        "start a run for each",
    ),
    "missing folder of the data": (
        words(task="vnbench_local"),
        "vnbench_local reads its table from ./data/vnbench, and there is no such folder in ...: put its data there, or "
        "start in the folder that holds data/",
    ),
    "missing folder of a group": (
        words(task="mvbench_local"),
        "mvbench_local_action_antonym reads its table from ./data/mvbench, and there is no such folder in ...: start "
        "in the folder that holds data/, or hf download OpenGVLab/MVBench --revision video --repo-type dataset "
        "--local-dir data/mvbench, and unpack its archives there",
    ),
    "a folder without a table": (
        words(task="egoschema_subset_local"),
        "egoschema_subset_local reads its table from ./data/egoschema/Subset, and that folder holds no parquet, JSON "
        "or CSV file: start in the folder that holds data/, or hf download lmms-eval/egoschema --repo-type dataset "
        "--local-dir data/egoschema, and unpack its archives there",
    ),
    "a table without a column": (
        words(task="mlvu_dev_local"),
        "mlvu_dev_local needs a column 'task_type', and data/mlvu_dev/test-00000-of-00001.parquet has video_name, "
        "question, answer: rename or add it, or download the table again",
    ),
    "all videos missing": (
        words(task="longvideobench_val_v_local"),
        "longvideobench_val_v_local: 2 of 2 videos are missing, such as data/longvideobench/videos/v0.mp4; 2 of 2 "
        "questions are about them: put the videos there, or unpack the archives in data/longvideobench/videos",
    ),
    "more videos missing than allowed": (
        words("max_failed=0.3"),
        "videomme_local: 1 of 3 videos are missing, such as data/videomme/data/v2.mp4; 1 of 3 questions are about "
        "them: put the videos there, or unpack the archives in data/videomme/data",
    ),
    "a table of one's own without a column": (
        words(task="clips.csv"),
        "clips.csv has no column 'question', did you mean 'qestion'? Available: video, qestion",
    ),
    "a table of one's own whose videos are missing": (
        words("--runs=runs", task="lost.csv"),
        "my_videos_lost_...: 1 of 1 videos are missing, such as .../a.mp4; 1 of 1 questions are about them: put the "
        "videos there, or unpack the archives in ...",
    ),
    "a table and a task": (
        words("--runs=runs", task="own/clips.csv,videomme_local"),
        "a table is run alone, got own/clips.csv,videomme_local; stgridpool sweep runs several tasks together",
    ),
    "no table": (
        words(task="my_videos"),
        "my_videos: there is no table ./data/my_videos (working directory: ...): mend the table, or name it instead of "
        "the task: stgridpool eval TABLE CHECKPOINT",
    ),
    "missing checkpoint": (
        words(model="/no/such/folder"),
        "/no/such/folder does not exist: pass the folder of a checkpoint, or a hub name such as owner/name",
    ),
    "a file as checkpoint": (
        words(model="file.safetensors"),
        "file.safetensors is a file: pass the folder of the checkpoint",
    ),
    "an empty checkpoint": (words(model="empty"), "empty holds no config.json: copy or download it again"),
    "a checkpoint without weights": (
        words(model="no_weights"),
        "no_weights holds no weights: neither model.safetensors nor model.safetensors.index.json with its files",
    ),
    "a method that native models cannot run": (
        ["videomme_local", "native", "earlytom"],
        "EarlyTom(...) acts on frames or in the vision tower, which only ...",
    ),
    "a method inside the language model, where a native model allows none": (
        ["videomme_local", "molmo", "sttm"],
        "STTM(...) acts inside the language model, which it cannot in molmo2: ...",
    ),
    "a checkpoint of another kind": (
        words(model="strange"),
        "strange is not a LLaVA checkpoint on Qwen2: strange/config.json must have architectures "
        "['LlavaQwenForCausalLM'] and mm_vision_tower, got ['GPT2LMHeadModel'] and ...; and model_type 'gpt2' is not "
        "one of the native models: ...",
    ),
    "half of a hub name": (
        words(model="LLaVA-Video-7B-Qwen2"),
        "LLaVA-Video-7B-Qwen2 is not a folder in ... and not in the hub's cache: name a folder, or download it first: "
        "hf download LLaVA-Video-7B-Qwen2",
    ),
    "no network": (
        words(model="lmms-lab/no-such-checkpoint"),
        "lmms-lab/no-such-checkpoint is not a folder in ... and not in the hub's cache: name a folder, or download it "
        "first: hf download lmms-lab/no-such-checkpoint",
    ),
    "an empty variable": (
        words(model=""),
        "pretrained must be a path, got an empty text; is it a shell variable that is not set?",
    ),
    "no number as limit": ([*words(), "--", "--limit", "nan"], OUT_OF_RANGE + "nan"),
    "no end as limit": ([*words(), "--", "--limit", "inf"], OUT_OF_RANGE + "inf"),
    "a limit without end": ([*words(), "--", "--limit", "1e30"], OUT_OF_RANGE + "1e+30"),
    "a limit below 0": ([*words(), "--", "--limit", "-3"], OUT_OF_RANGE + "-3"),
    "a share below 0": ([*words(), "--", "--limit", "-0.5"], OUT_OF_RANGE + "-0.5"),
    "half a question": ([*words(), "--", "--limit", "2.5"], OUT_OF_RANGE + "2.5"),
    "no question": ([*words(), "--", "--limit", "0"], OUT_OF_RANGE + "0"),
    "a word as limit": ([*words(), "--", "--limit", "few"], "--limit: invalid float value: 'few'"),
    "a limit that the shell took": ([*words(), "--", "--limit"], "--limit: expected one argument"),
    "an offset below 0": (
        [*words(), "--", "--offset", "-1"],
        "--offset must be a whole number from 0 to 1000000000, got -1",
    ),
    "typo in the model": (
        [*words(), "--", "--model", "lava_video"],
        "there is no model 'lava_video', did you mean 'llava_video'? Available: llava_video, video_hf",
    ),
    "the model for other checkpoints": (
        [*words(), "--", "--model", "video_hf"],
        "--model video_hf does not run ...: use --model llava_video",
    ),
    "typo in an argument": (
        words("max_frames_num=8", "max_frame_num=8"),
        "llava_video has no argument 'max_frame_num', did you mean 'max_frames_num'? Available: ...",
    ),
    "an argument out of range": (
        words("max_frames_num=0"),
        "max_frames_num must be a whole number from 1 to 100000, got 0",
    ),
    "an argument twice": (words("fps=1", "fps=2"), "fps is given twice in --model_args: leave one out"),
    "typo in the template": (
        words("conv_template=qwen_15"),
        "conv_template cannot be 'qwen_15', did you mean 'qwen_1_5'? Available: ...",
    ),
    "a wrong dtype": (
        words("torch_dtype=fp8"),
        "torch_dtype cannot be 'fp8'. Available: auto, float16, bfloat16, float32",
    ),
    "a package that is not installed": (
        words("attn_implementation=flash_attention_2"),
        "attn_implementation=flash_attention_2 needs a package: pip install flash-attn, or set "
        "attn_implementation=sdpa",
    ),
    "typo in the compressor": (
        words(compressor="st_gridpol"),
        "there is no compressor 'st_gridpol', did you mean 'st_gridpool'? Available: ...",
    ),
    "typo in an option": (
        words('compressor_args={"kernel":3}'),
        "nsp has no option 'kernel', did you mean 'kernel_size'? Available: ...",
    ),
    "an open brace": (
        words('compressor_args={"kernel_size":3'),
        "--model_args: a quote, brace or bracket is not closed in ...",
    ),
    "quotes that the shell took": (
        words("compressor_args={kernel_size:3}"),
        "compressor_args must be JSON, got '{kernel_size:3}': Expecting property name enclosed in double quotes: ...",
    ),
    "methods that cannot be joined": (
        words(compressor="sttm+nsp"),
        "... cannot be joined in this order: NSP...",
    ),
    "no process": (words(processes="0"), "the number of processes must be at least 1, got 0"),
    "a word as number of processes": (words(processes="two"), "NUM_PROCESSES must be a number from 1, got two"),
    "one model on several processes": (
        words("device_map=auto", processes="2"),
        "device_map=auto is for a single process, not 2: leave it out so that each process loads its own model, or "
        "start a single process",
    ),
    "no GPU": (
        words("device=cuda:97"),
        "there is no device cuda:97: torch sees ... GPUs; leave device out, or set device=cpu",
    ),
    # 64 frames of 7 x 7 patches, the newlines of 7 rows each and 64 tokens of text; 34 * (49 + 7) + 64 = 1968
    "too many frames": (
        words("max_frames_num=64", model="short", compressor="none"),
        "64 frames make a prompt of about 3648 tokens (64 for text), "
        "and the checkpoint takes prompts of 2000: questions about long "
        "videos will fail; use compressor=bilinear, max_frames_num=34, a stronger method, or a longer context with "
        "max_length=3648",
    ),
    # 2 x 2 tokens of a frame and a newline: 2000 * 5 + 64; pooled to one token 2000 * 2 + 64; 806 * 5 + 64 = 4094
    "too many frames for NVILA": (
        words("max_frames_num=2000", model=str(NVILA), compressor="none"),
        "2000 frames make a prompt of about 10064 tokens (64 for text), "
        "and the checkpoint takes prompts of 4096: questions about "
        "long videos will fail; use compressor=bilinear, max_frames_num=806, a stronger method, or a longer context "
        "with max_length=10064",
    ),
}


def last_line(given, monkeypatch, capsys):
    """Run the command that evaluate.sh calls; return the only line that it prints about a run that cannot work."""
    monkeypatch.setattr("sys.argv", ["check_command", "evaluate.sh", *given])
    with pytest.raises(SystemExit) as end:
        check_command.main()
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    [line] = printed.err.splitlines()
    return line


def is_expected(name, line):
    return says(f"evaluate.sh: {MISTAKES[name][1]}", line)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_in_one_line_before_anything_is_loaded(name, monkeypatch, capsys):
    line = last_line(MISTAKES[name][0], monkeypatch, capsys)
    assert is_expected(name, line), line


def test_a_table_may_name_a_column_that_no_video_has(monkeypatch, capsys):
    """A column that only the videos need is named, too."""
    line = last_line(words(task="tempcompass_multi_choice_local"), monkeypatch, capsys)
    assert line.startswith("evaluate.sh: tempcompass_multi_choice_local needs a column 'dim', and data/tempcompass/")


CODE = f"""
import json, sys
from lmms_eval_stgridpool.run import check_command, device_checks, without_torch
without_torch._stand_in()  # once for all of them
device_checks._has_driver = lambda: False  # torch counts the GPUs of other machines
for words in json.load(sys.stdin):
    sys.argv = ["check_command", "evaluate.sh", *words]
    try:
        check_command.main()
    except SystemExit as end:
        assert end.code == 2
print([name for name in {HEAVY} if name in sys.modules])
"""


def test_all_mistakes_are_found_without_importing_anything_heavy(environment, workplace):
    run = make_all(CODE, MISTAKES, environment, workplace)  # `TorchNeeded` would end it
    assert run.stdout.strip() == "[]"
    lines = run.stderr.splitlines()
    assert [name for name, line in zip(MISTAKES, lines, strict=True) if not is_expected(name, line)] == []
