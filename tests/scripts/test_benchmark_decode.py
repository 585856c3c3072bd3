"""The comparison of decoders: what it prints, and that all of them give the same frames."""

import json
from pathlib import Path

import pytest

from llava.video import BACKENDS

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def measured(tmp_path_factory, run_python):
    """What the command writes about short clips, and the table that it prints."""
    output = tmp_path_factory.mktemp("decode") / "numbers.json"
    command = ["scripts/benchmark.py", "decode", "--seconds", "17", "--size", "64", "48"]
    command += ["--frames", "5", "--rounds", "1", "--output", str(output)]
    done = run_python(*command, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text()), done.stdout


def test_all_decoders_give_the_same_frames_of_all_clips(measured):
    rows = measured[0]["rows"]
    assert {row["clip"] for row in rows} == {"h264", "hevc", "h264, variable rate"}
    for row in rows:
        assert row["equal_indices"], row
        assert row["greatest_pixel_difference"] <= 1, row
        assert 0 < row["seconds"] < 60
    assert {row["decoder"] for row in rows} >= set(BACKENDS)


def test_fewer_frames_are_decoded_than_the_clip_has(measured):
    for row in measured[0]["rows"]:
        if row["decoder"] == "pyav":
            assert 5 <= row["frames_decoded"] <= 600  # of 1000: four groups of 250


def test_the_table_shows_the_numbers(measured):
    for word in ("pyav", "decord", "frames decoded", "equal indices", "hevc"):
        assert word in measured[1]
