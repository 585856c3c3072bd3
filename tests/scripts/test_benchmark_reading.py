"""The measurements of reading: what they print, with small clips."""

import json
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = ["--clips", "2", "--frames", "4", "--size", "64", "48", "--json"]


@pytest.fixture
def measure(run_python):
    """Function that runs a measurement of small clips with new reading processes; returns its numbers."""

    def measure(*arguments):
        done = run_python("scripts/benchmark.py", *arguments, *SMALL, cwd=REPOSITORY, READING_TEMPLATE="")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return measure


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_counts_the_reading_processes(measure, tmp_path):
    row = measure("memory", "--output", str(tmp_path / "numbers.json"))
    assert row["peak_mb_together"] > row["peak_mb_of_this_process"] > 0
    assert row["frames_of_a_clip_after_resizing_mb"] == pytest.approx(4 * 384 * 384 * 3 / 1e6)
    written = json.loads((tmp_path / "numbers.json").read_text())
    assert written["clips"] == {"clips": 2, "frames": 4, "size": [64, 48], "codec": "h264"}


def test_short_clips_are_read_in_three_ways(measure):
    rows = measure("short", "--rounds", "1")
    assert [row["way"] for row in rows] == ["here", "a process for each", "processes used again"]
    assert all(row["seconds"] > 0 and row["cpu_seconds"] > 0 for row in rows)
