"""The command `native`, on a tiny model of a family."""

import argparse

import pytest
import torch

from native_models.families import save

METHODS = ("random", "fastv")


@pytest.fixture(scope="module")
def native(benchmarking):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmarking("native"), "ALL", [*METHODS, "ptg"])
        yield benchmarking("native")


@pytest.fixture(scope="module")
def parse(native, tmp_path_factory):
    folder = save("qwen2_5_vl", tmp_path_factory.mktemp("native"))
    parser = argparse.ArgumentParser()
    native.add_parser(parser.add_subparsers())
    options = ["--frames", "6", "--size", "40", "64", "--new-tokens", "3", "--rounds", "1", "--retention", "0.6"]
    return lambda *methods: parser.parse_args(["native", str(folder), *options, "--device", "cpu", *methods])


@pytest.fixture(scope="module")
def numbers(native, parse):
    found = native.benchmark_native(parse("--all"))
    native.print_native(found)
    return found


def test_rows(numbers):
    unmodified, *inside = rows = numbers["rows"]
    assert [row["method"] for row in rows] == ["unmodified", "none", *METHODS]
    visual = 3 * 5 * 8  # two frames of 5x8 tokens in each of three groups
    assert [unmodified["tokens_in_front"] - row["tokens_in_front"] for row in inside] == [0, round(0.4 * visual), 0]
    assert all(row["first_token_ms"] > 0 and row["answer_ms"] > 0 for row in rows)
    assert unmodified["ratio_to_unmodified"] == 1


def test_of_all_methods_those_that_cannot_are_named(native, parse, numbers):
    assert list(numbers["left_out"]) == ["ptg"]
    assert numbers["left_out"]["ptg"].startswith("PTG has no budget by which layer_average could be 0.6")
    with pytest.raises(ValueError, match="PTG has no budget"):
        native.benchmark_native(parse("--methods", "ptg"))


def test_what_was_measured_is_named(numbers):
    expected = {"model_type": "qwen2_5_vl", "dtype": "float32", "frames": 6, "new_tokens": 3}
    assert numbers.items() >= expected.items()
    assert numbers["device"].startswith("cpu")


def test_random_weights_answer(benchmarking, tmp_path):
    folder = save("qwen3_vl", tmp_path)
    (folder / "model.safetensors").unlink()
    arguments = argparse.Namespace(checkpoint=folder, random_weights=True, frames=4, size=[40, 64])
    model, processor = benchmarking("native").load(arguments, torch.device("cpu"), torch.float32)
    inputs = benchmarking("native").processed(processor, arguments)
    assert model.generate(**inputs, max_new_tokens=3, do_sample=False).shape[1] == inputs["input_ids"].shape[1] + 3
