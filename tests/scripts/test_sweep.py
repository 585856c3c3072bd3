"""A sweep writes, compressor by compressor, what runs of their own write."""

import json
import shutil
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def sweep(load_script, workplace, monkeypatch, tmp_path_factory):
    """Function that runs the command in the workplace, or in a copy whose videos are empty files."""

    def run(*words, has_videos=True):
        monkeypatch.chdir(workplace)
        if not has_videos:
            folder = tmp_path_factory.mktemp("no_videos")
            shutil.copytree(workplace, folder, dirs_exist_ok=True)
            for video in folder.rglob("*.mp4"):
                video.write_bytes(b"")
            monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["sweep.py", *map(str, words)])
        load_script("sweep").main()

    return run


@pytest.mark.slow
@pytest.mark.usefixtures("_known_stock_tasks")
def test_a_sweep_writes_what_separate_runs_find(sweep, miniature, tmp_path, capsys):
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    model_args = f"pretrained={miniature},max_frames_num=8,device=cpu,decode_threads=1"
    common = ("--tasks", "videomme_local", "--model_args", model_args, "--output_path", tmp_path, "--limit", 10)
    sweep(*common, "bilinear", 'average:{"kernel_size":3}')
    shown = capsys.readouterr().out
    assert "average_kernel_size=3: Average(kernel_size=3" in shown
    assert "Reading and encoding, all compressors together: " in shown
    manager = TaskManager(include_path=str(REPOSITORY / "custom_tasks"), model_name="llava_video")
    for folder, options in (
        ("bilinear", "compressor=bilinear"),
        ("average_kernel_size=3", 'compressor=average,compressor_args={"kernel_size":3}'),
    ):
        results, samples = read(tmp_path / folder)
        own = simple_evaluate(
            model="llava_video",
            model_args=f"{model_args},{options}",
            tasks=["videomme_local"],
            batch_size=1,
            limit=10,
            task_manager=manager,
        )
        assert results["config"]["model"] == "llava_video"
        assert results["config"]["model_args"] == f"{model_args},resume_dir={tmp_path}/answers,{options}"
        assert results["results"] == own["results"]
        assert len(samples) == 10  # of both clips
        for sample, own_sample in zip(samples, own["samples"]["videomme_local"], strict=True):
            assert [sample["filtered_resps"]] == own_sample["filtered_resps"]
            tokens = [one["token_counts"][0]["visual_tokens"] for one in (sample, own_sample)]
            assert tokens[0] == tokens[1] > 0


def read(folder):
    """The results and the samples that a run wrote below `folder`."""
    [results] = folder.rglob("*_results.json")
    [samples] = folder.rglob("*_samples_videomme_local.jsonl")
    assert list(folder.rglob("*_run.json"))
    return json.loads(results.read_text()), [json.loads(line) for line in samples.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.usefixtures("_known_stock_tasks")
def test_a_sweep_that_could_answer_nothing_fails(sweep, miniature, tmp_path, capsys):
    model_args = f"pretrained={miniature},max_frames_num=2,device=cpu,decode_threads=1"
    common = ("--tasks", "videomme_local", "--model_args", model_args, "--output_path", tmp_path)
    with pytest.raises(SystemExit, match="1"):
        sweep(*common, "bilinear", has_videos=False)
    shown = capsys.readouterr()
    assert "the run failed: 16 of 16 questions could not be answered (unreadable video: 16)" in shown.out
    assert "sweep.py: a run failed" in shown.err
    [results] = tmp_path.rglob("*_results.json")
    assert json.loads(results.read_text())["unanswered"]["questions"] == 16


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("bilinaer",), "there is no compressor 'bilinaer', did you mean 'bilinear'"),
        (("average:{kernel_size}",), "average:{kernel_size}: "),
        (('average:{"kernel_size":0}',), "kernel_size must be a whole number from 1 to 256"),
        (('average:{"stride":2,"stride":3}',), "'stride' is given twice; leave one out"),
        (("none", "none"), "a compressor is named twice"),
    ],
)
def test_what_is_not_a_compressor_is_refused(sweep, capsys, words, message):
    with pytest.raises(SystemExit, match="2"):
        sweep("--tasks", "videomme_local", "--model_args", "pretrained=x", *words)
    assert message in capsys.readouterr().err


def test_help(sweep, capsys):
    with pytest.raises(SystemExit, match="0"):
        sweep("--help")
    assert "Evaluate several compressors on a task in one process" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("_known_stock_tasks")
def test_all_compressors_leave_the_same_share_or_say_why_not(sweep, miniature, tmp_path, capsys):
    """The miniature's own pooling leaves 16 tokens a frame of 36; windows leave 9 or 4."""
    model_args = f"pretrained={miniature},max_frames_num=4,device=cpu,decode_threads=1"
    common = ("--tasks", "videomme_local", "--model_args", model_args, "--output_path", tmp_path, "--limit", 1)
    sweep(*common, "--retention", 0.5, 0.25, 0.1, "random", 'nsp:{"norm_order":1}', "fastv", "temporal_average")
    captured = capsys.readouterr()
    shown = captured.out
    assert "Answering: 1/1 (100.0%)" in captured.err  # not a terminal: lines instead of a bar
    assert "nsp_norm_order=1@0.5: leaves 56.2 %" in shown
    assert "fastv@0.25: left out: FastV acts at layer 2" in shown
    assert "temporal_average@0.1: left out: temporal_average leaves whole frames" in shown
    for folder, tokens in {"random@0.5": 32, "random@0.25": 16, "nsp_norm_order=1@0.25": 16}.items():
        results, [sample] = read(tmp_path / folder)
        assert sample["token_counts"][0]["visual_tokens"] == tokens
    assert '"norm_order":1' in results["config"]["model_args"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--retention", "random"], "--retention needs a number, got 'random'"),
        (["--retention", "0.5", "randum"], "did you mean 'random'"),
        (["--retention", "0.5"], "name at least one compressor"),
    ],
)
def test_words_that_make_no_sweep_are_refused(sweep, words, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        sweep("--tasks", "videomme_local", "--model_args", "pretrained=nowhere", *words)
    assert message in capsys.readouterr().err
