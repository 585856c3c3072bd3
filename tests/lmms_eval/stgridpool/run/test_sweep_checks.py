"""Typical mistakes in sweeps and searches, and the last line about each, before anything is loaded."""

from dataclasses import replace
from pathlib import Path

import pytest

from lmms_eval_stgridpool.cli import app
from lmms_eval_stgridpool.run import checkpoint_checks, device_checks
from lmms_eval_stgridpool.run.sweep_checks import Compared, check_search, check_sweep
from mistakes import make_all, says

MINIATURE = str(Path(__file__).resolve().parents[4] / "scripts" / "nano" / "checkpoint")
HEAVY = ("torch._C", "transformers", "lmms_eval", "datasets", "pandas", "accelerate")


@pytest.fixture(autouse=True)
def _in_workplace(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(checkpoint_checks, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("RANK", raising=False)


def sweep(*words, tasks="videomme_local", model_args=f"pretrained={MINIATURE},max_frames_num=8"):
    return ["sweep", *words, "--tasks", tasks, "--model_args", model_args]


def choose(*words, inputs=("own/clips.csv",), checkpoint=MINIATURE):
    return ["choose", *inputs, "--checkpoint", checkpoint, "--frames", "8", *words]


OUT_OF_RANGE = (
    "--limit must be a whole number of questions from 1 to 1000000000, a share of them above 0 and below 1, or -1 for "
    "all, got "
)
# "..." stands for any text.
MISTAKES = {
    "typo in a compressor": (
        sweep("bilinear", "nps"),
        "nps: there is no compressor 'nps', did you mean 'nsp'? Available: ...",
    ),
    "typo in an option": (
        sweep('nsp:{"kernel":3}'),
        "nsp:{\"kernel\":3}: nsp has no option 'kernel', did you mean 'kernel_size'? Available: ...",
    ),
    "quotes that the shell took": (
        sweep("nsp:{kernel_size:3}"),
        "nsp:{kernel_size:3}: its options must be JSON, got '{kernel_size:3}': ...",
    ),
    "a compressor twice": (sweep("nsp", "nsp"), "a compressor is named twice"),
    "a compressor among the arguments": (
        sweep("nsp", model_args="pretrained=x,compressor=none"),
        "--model_args of a sweep holds compressor, which would be ignored; name its compressors as COMPRESSOR",
    ),
    "typo in the definition of retention": (
        sweep("nsp", "--retention-of", "first_layer"),
        "--retention-of cannot be 'first_layer', did you mean 'last_layer'? Available: ...",
    ),
    "a retention in percent": (
        sweep("nsp", "--retention", "50"),
        "--retention must be a number above 0 and at most 1, got 50.0",
    ),
    "no number as limit": (sweep("nsp", "--limit", "nan"), OUT_OF_RANGE + "nan"),
    "no end as limit": (sweep("nsp", "--limit", "inf"), OUT_OF_RANGE + "inf"),
    "a limit without end": (sweep("nsp", "--limit", "1e30"), OUT_OF_RANGE + "1e+30"),
    "a limit below 0": (sweep("nsp", "--limit", "-3"), OUT_OF_RANGE + "-3"),
    "a share below 0": (sweep("nsp", "--limit", "-0.5"), OUT_OF_RANGE + "-0.5"),
    "half a question": (sweep("nsp", "--limit", "2.5"), OUT_OF_RANGE + "2.5"),
    "no question": (sweep("nsp", "--limit", "0"), OUT_OF_RANGE + "0"),
    "a share of several tasks": (
        sweep("nsp", "--limit", "0.5", tasks="videomme_local,longvideobench_val_v_local"),
        "--limit 0.5 is a share of the first of 2 tasks, and lmms-eval asks as many questions of each of the others: "
        "give a whole number, or start a run for each task",
    ),
    "typo in the task": (
        sweep("nsp", tasks="videome_local"),
        "there is no task 'videome_local', did you mean 'videomme_local'? Tasks on disk: ...",
    ),
    "no folder of tasks": (
        sweep("nsp", "--include_path", "no_tasks"),
        "--include_path no_tasks ...",
    ),
    "a table without a column": (
        sweep("nsp", tasks="clips.csv,videomme_local"),
        "clips.csv has no column 'question', did you mean 'qestion'? Available: video, qestion",
    ),
    "no table": (sweep("nsp", tasks="none.csv"), "there is no table none.csv ..."),
    "a table of one's own whose videos are missing": (
        sweep("nsp", tasks="lost.csv"),
        "my_videos_lost_...: 1 of 1 videos are missing, such as .../a.mp4; 1 of 1 questions are about them: put the "
        "videos there, or unpack the archives in ...",
    ),
    "missing checkpoint": (
        sweep("nsp", model_args="pretrained=/no/such/folder"),
        "/no/such/folder does not exist: pass the folder of a checkpoint, or a hub name such as owner/name",
    ),
    "a method that native models cannot run": (
        sweep("nsp", "image_grid", model_args="pretrained=native"),
        "ImageGrid(...) acts on frames or in the vision tower, which only checkpoints in LLaVA-NeXT's format allow: "
        "choose another method for native models",
    ),
    "a method inside the language model, where a native model allows none": (
        sweep("nsp", 'sttm:{"layer":2}', model_args="pretrained=molmo"),
        "STTM(...) acts inside the language model, which it cannot in molmo2: there visual tokens attend to one "
        "another in both directions. Choose a method that acts before it",
    ),
    "a method for deeper language models": (
        sweep("nsp", 'pyramid_drop:{"preset":"released"}'),
        "pyramid_drop_preset=released: layers must ascend and be below the model's 5 layers, got (8, 16, 24): "
        "set layers or preset='corrected'",
    ),
    "no checkpoint": (
        sweep("nsp", model_args="fps=1"),
        "llava_video needs pretrained=FOLDER_OR_NAME in --model_args",
    ),
    "typo in an argument": (
        sweep("nsp", model_args=f"pretrained={MINIATURE},max_frame_num=8"),
        "llava_video has no argument 'max_frame_num', did you mean 'max_frames_num'? Available: ...",
    ),
    "no GPU": (
        sweep("nsp", model_args=f"pretrained={MINIATURE},device=cuda:97"),
        "there is no device cuda:97: torch sees ... GPUs; leave device out, or set device=cpu",
    ),
    # 64 frames of 7 x 7 patches, the newlines of 7 rows each and 64 tokens of text
    "too many frames for one of the compressors": (
        sweep("bilinear", "none", model_args="pretrained=short,max_frames_num=64"),
        "none: 64 frames make a prompt of about 3648 tokens (64 for text), "
        "and the checkpoint takes prompts of 2000: questions about "
        "long videos will fail; use compressor=bilinear, max_frames_num=34, ...",
    ),
    # 100 frames of 4 x 4 tokens and 4 newlines are 2000; 96 * 20 + 64 = 1984
    "too many frames for the checkpoint as it is": (
        sweep("nsp", "--uncompressed", model_args="pretrained=short,max_frames_num=100"),
        "uncompressed: 100 frames make a prompt of about 2064 tokens (64 for text), "
        "and the checkpoint takes prompts of 2000: "
        "questions about long videos will fail; use max_frames_num=96, ...",
    ),
    "one model on several processes": (
        sweep("nsp", "--processes", "2", model_args=f"pretrained={MINIATURE},device_map=auto"),
        "device_map=auto is for a single process, not 2: leave it out ...",
    ),
    "search: typo in a method": (choose("-m", "nps"), "nps: there is no compressor 'nps', did you mean 'nsp'? ..."),
    "search: no video": (
        choose(inputs=("c.mp4",)),
        "there is no video, folder or table c.mp4 (working directory: ...)",
    ),
    "search: a folder without videos": (choose(inputs=("empty",)), "no videos in empty"),
    "search: a table without a column": (
        choose(inputs=("vidoes.csv",)),
        "vidoes.csv has no column 'video', did you mean 'vidoe'? Available: vidoe, question",
    ),
    "search: a table whose videos are missing": (
        choose(inputs=("lost.csv",)),
        "lost.csv: 1 of 1 videos are missing, such as .../a.mp4; 1 of 1 questions are about them: ...",
    ),
    "search: missing checkpoint": (
        choose(checkpoint="lmms-lab/no-such-checkpoint"),
        "lmms-lab/no-such-checkpoint is ... folder in ... and not in the hub's cache: ...",
    ),
    "search: a method that native models cannot run": (
        choose("-m", "earlytom", checkpoint="native"),
        "EarlyTom(...) acts on frames or in the vision tower, which only ...",
    ),
    "search: evidence that native models lack": (
        choose("-m", 'prumerge:{"importance":"class"}', checkpoint="native"),
        "PruMerge(...) needs ...; this model offers ...",
    ),
    "search: typo in what to save": (
        choose("--save", "second"),
        "--save cannot be 'second', did you mean 'seconds'? Available: seconds, cache",
    ),
    "search: a tolerance in percent": (
        choose("--tolerance", "2"),
        "--tolerance must be a number above 0 and at most 1, got 2.0",
    ),
}


def is_expected(name, line):
    return says(f"stgridpool: {MISTAKES[name][1]}", line)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_in_one_line_before_anything_is_loaded(name, monkeypatch):
    monkeypatch.setattr("sys.argv", ["stgridpool", *MISTAKES[name][0]])
    with pytest.raises(SystemExit) as end:
        app.main()
    assert is_expected(name, str(end.value)), end.value


CODE = f"""
import json, sys
from lmms_eval_stgridpool.cli import app
from lmms_eval_stgridpool.run import device_checks, without_torch
without_torch._stand_in()  # once for all of them
device_checks._has_driver = lambda: False  # torch counts the GPUs of other machines
for words in json.load(sys.stdin):
    sys.argv = ["stgridpool", *words]
    try:
        app.main()
    except SystemExit as end:
        print(end)
print([name for name in {HEAVY} if name in sys.modules])
"""


def test_all_mistakes_are_found_without_importing_anything_heavy(environment, workplace):
    run = make_all(CODE, MISTAKES, environment, workplace)  # `TorchNeeded` would end it
    *lines, loaded = run.stdout.splitlines()
    assert loaded == "[]"
    assert [name for name, line in zip(MISTAKES, lines, strict=True) if not is_expected(name, line)] == []


RIGHT = f"pretrained={MINIATURE},max_frames_num=8"


def test_what_is_right_is_let_through():
    several = Compared(("nsp", "random"), RIGHT, (0.5, 0.25), "layer_average", True, 2)
    [warning] = check_sweep(several, "own/clips.csv,videomme_local")
    assert warning.startswith("videomme_local: 1 of 3 videos are missing, such as data/videomme/data/v2.mp4; ")
    assert check_sweep(several, "videomme_local", limit=2) == ()
    assert check_search(several, [Path("own")], None, 0, "cache") == ()
    assert check_search(several, [Path("own/clips.csv")], Path("out"), None, "seconds") == ()


def test_a_retention_may_make_long_videos_fit():
    """Of frames with 16 tokens and up to 4 newlines, for a checkpoint that takes 2000 tokens."""
    half, whole = (
        Compared(("random",), "pretrained=short,max_frames_num=100", (share,), "layer_average") for share in (0.5, 1.0)
    )
    assert check_sweep(half, "videomme_local", limit=2) == ()  # 800, at most 400, and 64 of text
    [warning] = check_sweep(whole, "videomme_local", limit=2)  # 1600, at most 400, and 64 of text
    assert warning.startswith("random@1: 100 frames make a prompt of about 2064 tokens")
    more = replace(whole, model_args="pretrained=short,max_frames_num=126")  # 2016 without newlines
    with pytest.raises(ValueError, match=r"^random@1: 126 frames .* questions about long videos will fail"):
        check_sweep(more, "videomme_local", limit=2)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(device_checks, "count_gpus", lambda: 2)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    several = Compared(("nsp",), RIGHT, processes=3)
    with pytest.raises(ValueError, match="3 processes on this machine need as many GPUs, and torch sees 2: start 2"):
        check_sweep(several, "videomme_local")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert check_sweep(several, "videomme_local", limit=2) == ()
