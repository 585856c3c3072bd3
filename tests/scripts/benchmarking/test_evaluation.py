"""The command `eval`: one object on standard output, from real runs of the plug-in."""

import argparse
import json
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[3]
OPTIONS = ("--size", "tiny", "--questions-per-video", "2", "--videos", "1", "--clip-seconds", "2", "--frames", "3")
MODEL_STAGES = {"vision", "projector", "compress", "prefill", "generate"}


@pytest.fixture(scope="module")
def printed(tmp_path_factory, run_python):
    """What the command prints and writes."""
    file = tmp_path_factory.mktemp("results") / "eval.json"
    command = ["scripts/benchmark.py", "eval", *OPTIONS, "--device", "cpu", "--json"]
    done = run_python(*command, "--output", file, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), json.loads(file.read_text())


def test_numbers_agree_with_each_other(printed):
    numbers, _ = printed
    plain, *_, together = numbers["variants"]
    assert numbers["seconds_per_question"] == together["seconds_per_question"]
    assert numbers["speedup"] == pytest.approx(
        plain["seconds_per_question"] / together["seconds_per_question"], rel=0.01
    )
    assert plain["speedup"] == 1
    assert 0 < numbers["busy_share"] < 1
    for row in numbers["variants"]:
        assert row["stages"].keys() >= MODEL_STAGES
        busy = sum(row["stages"][stage] for stage in MODEL_STAGES)
        assert row["busy_share"] == pytest.approx(busy / row["seconds_per_question"], abs=0.002)
        assert row["peak_memory_bytes"] > 2**20
    first = numbers["time_to_first_token_s"]
    assert 0 < first["without_vision_tower"] < first["with_vision_tower"] < first["from_the_file"]
    assert numbers["matmul"]["vision_share"] > 0
    assert numbers["matmul"]["prefill_share"] > 0


def test_every_variant_answers_alike(printed):
    numbers, _ = printed
    assert [row["questions"] for row in numbers["variants"]] == [2] * 6
    assert all(row["equal_answers"] == 1 for row in numbers["variants"])
    assert numbers["visual_tokens"] == 3 * (8 * 8 + 8)  # 16x16 patches become 8x8, and a newline for each row


def test_the_file_says_what_made_it(printed):
    numbers, written = printed
    assert written.items() >= numbers.items()
    assert written["command"].startswith("python scripts/benchmark.py eval --size tiny")
    assert written["weights"] == "random, seed 0"


def test_a_clip_that_cannot_be_read_is_an_error(benchmarking, small, tmp_path):
    plug_in, variants = benchmarking("plug_in"), benchmarking("variants")
    parts = benchmarking("random_model").make_model(small, ["What?"], torch.float32, torch.device("cpu"))
    arguments = argparse.Namespace(
        device="cpu", dtype="float32", frames=2, questions_per_video=1, decode_threads=1, prefetch=0
    )
    (tmp_path / "clip.mp4").write_text("no video")
    with pytest.raises(RuntimeError, match=r"1 questions have no answer, the first because .*clip"):
        plug_in.Asker(parts, arguments).ask(variants.VARIANTS[-1], [variants.Question(tmp_path / "clip.mp4", "What?")])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(benchmarking):
    parser = argparse.ArgumentParser()
    benchmarking("evaluation").add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["eval", *OPTIONS, "--device", "cuda"])
    numbers = benchmarking("evaluation").benchmark_evaluation(arguments)
    assert numbers["device"] == torch.cuda.get_device_name()
    assert numbers["dtype"] == "bfloat16"
    assert 0 < numbers["busy_share"] <= 1
    assert 0 < numbers["peak_memory_bytes"] < 2**31


def test_tables(printed, benchmarking, capsys):
    benchmarking("evaluation_report").print_evaluation(printed[0])
    shown = capsys.readouterr().out
    assert "tiny geometry, random weights, float32" in shown
    for part in ("plain loop", "all together", "without the vision tower", "the prefill"):
        assert part in shown


def test_defaults_of_each_size(benchmarking):
    evaluation = benchmarking("evaluation")
    assert evaluation.SCALES.keys() == benchmarking("geometry").GEOMETRIES.keys()
    texts = evaluation.question_texts(8)
    assert len(set(texts)) == 8


@pytest.mark.parametrize(("answers", "share"), [(["A", "B"], 1.0), (["A", "C"], 0.5)])
def test_different_answers_are_an_error_in_float32(benchmarking, answers, share):
    report, variants = benchmarking("evaluation_report"), benchmarking("variants")
    stages = dict.fromkeys(report.MODEL_STAGES, 0.1) | {"wait_for_video": 0.1}

    def measured(index, answers):
        return variants.Measured(variants.VARIANTS[index], 1.0, stages, answers, 10, 20, None)

    row = report.row(measured(5, answers), measured(0, ["A", "B"]), [1.0])
    assert row["equal_answers"] == share
    if share < 1:
        with pytest.raises(RuntimeError, match="the variants answer differently"):
            report.check_answers([row], "float32")
    report.check_answers([row], "bfloat16")
