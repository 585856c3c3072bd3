"""The held-out sets are the same for the same seed, balanced, and readable as Video-MME and VNBench are."""

import hashlib
import json
from collections import Counter

import pytest
from pyarrow import parquet

from llava.video import read_video

# Of the questions that the model card's numbers are about: python scripts/nano/make_data.py nano_data
VIDEOMME_SHA256 = "87e0341233079417b9485c592b9e57f21e45887f849c918ae10d37cc0f25e5f0"
VNBENCH_SHA256 = "ce195a2f93ad028604d2334366a0ed156142fcbc2b377a378894d5d3bf7ad2d3"


@pytest.fixture(scope="module")
def maker(nano):
    return nano("make_data")


@pytest.fixture(scope="module")
def published(maker):
    return list(maker.videomme_rows(maker.plan_held_out(125, (8, 16), 0), (8, 16), 0))


def sha256(rows):
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def test_published_questions_have_their_checksums(maker, published):
    assert sha256(published) == VIDEOMME_SHA256
    planned = maker.plan_held_out(25, (8, 16), 500)
    clips = [maker.with_needle_at(clip, maker.DEPTHS[number % 5]) for number, clip in enumerate(planned)]
    assert sha256(list(maker.vnbench_rows(clips, 0))) == VNBENCH_SHA256


def test_published_questions_are_balanced(published):
    assert len(published) == 1000
    for task_type in {row["task_type"] for row in published}:
        letters = Counter(row["answer"] for row in published if row["task_type"] == task_type)
        assert sorted(letters.values()) == [31, 31, 31, 32]
    lengths = Counter(row["duration"] for row in published)
    assert set(lengths) == {"short", "medium", "long"}
    assert min(lengths.values()) > 300


def test_files_hold_what_the_rows_say(clips_folder, maker):
    rows = parquet.read_table(clips_folder / "test-00000-of-00001.parquet").to_pylist()
    assert rows == list(maker.videomme_rows(maker.plan_held_out(8, (12, 16), 77), (12, 16), 77))
    for number, seconds in ((0, 12), (4, 16)):
        clip = read_video(clips_folder / "data" / f"nano{number:04d}.mp4", 32)
        assert clip.frames.shape == (seconds, 256, 256, 3)
        assert clip.times == list(range(seconds))


def test_frames_of_a_file_show_what_was_drawn(clips_folder, maker, nano):
    planned = maker.plan_held_out(1, (12, 16), 77)[0]
    drawn = nano("drawing").draw_clips(planned, maker.SIZE)[0].permute(0, 2, 3, 1).numpy()
    frames = read_video(clips_folder / "data" / "nano0000.mp4", 32).frames
    assert abs(frames - drawn).mean() < 5  # of 255: what the codec loses


def test_vnbench_asks_four_times_with_the_answer_at_each_letter(maker, tmp_path):
    maker.write_vnbench(tmp_path, 2, (8, 9), seed=3)
    items = json.loads((tmp_path / "test.json").read_text())
    assert [item["gt_option"] for item in items] == list("ABCDABCD")
    assert [item["needle_time"] for item in items[::4]] == [[0], [2]]  # depths 0 of 8 seconds and 0.25 of 9
    for item in items:
        assert item["options"]["ABCD".index(item["gt_option"])] == item["gt"]
        assert sorted(item["options"]) == sorted(items[4 * (items.index(item) // 4)]["options"])
    assert len(read_video(tmp_path / items[4]["video"], 32).frames) == 9


@pytest.mark.parametrize(
    ("write", "file"), [("write_videomme", "test-00000-of-00001.parquet"), ("write_vnbench", "test.json")]
)
def test_a_real_set_is_not_overwritten(maker, tmp_path, write, file):
    (tmp_path / file).write_text("downloaded for hours")
    with pytest.raises(FileExistsError, match="-like set must be a folder for this purpose alone"):
        getattr(maker, write)(tmp_path, 1, (8, 8), seed=0)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {file: "downloaded for hours"}
