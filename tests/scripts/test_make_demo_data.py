"""The demo's clips decode to what was drawn, and its questions are in Video-MME's format."""

import collections

import av
import numpy as np
import pytest
from datasets import load_dataset

FIELDS = [
    *("video_id", "duration", "domain", "sub_category", "url", "videoID"),
    *("question_id", "task_type", "question", "options", "answer"),
]


@pytest.fixture(scope="module")
def maker(load_script):
    return load_script("make_demo_data")


@pytest.fixture(scope="module")
def data(maker, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return folder, maker.write_dataset(folder, num_clips=4, seed=0)


def read_rows(folder, cache):
    return list(load_dataset(str(folder), split="test", cache_dir=str(cache)))


def test_clips_decode_with_the_planned_frames_and_no_sound(data):
    folder, clips = data
    for clip in clips:
        with av.open(str(folder / "data" / f"{clip.video_id}.mp4")) as container:
            assert [stream.type for stream in container.streams] == ["video"]
            assert container.streams.video[0].codec_context.name == "h264"
            assert sum(1 for _ in container.decode(video=0)) == clip.num_frames


def test_a_decoded_frame_shows_the_shape_where_it_was_drawn(maker, data):
    folder, clips = data
    clip = clips[0]
    with av.open(str(folder / "data" / f"{clip.video_id}.mp4")) as container:
        last = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][-1]
    drawn = maker.draw(clip, clip.num_frames - 1)
    assert np.abs(last.astype(int) - drawn.astype(int)).mean() < 6  # what the codec loses


def test_the_shape_moves_the_way_the_clip_says(maker):
    clip = maker.Clip("clip", 1, "square", "red", "right", num_dots=1, start=(120, 100), speed=10)
    columns = [np.where((maker.draw(clip, frame) == maker.COLOURS["red"]).all(-1))[1] for frame in (0, 3)]
    assert columns[1].mean() - columns[0].mean() == 30


def test_rows_have_the_fields_and_categories_of_video_mme(data, tmp_path):
    from lmms_eval.tasks.videomme import utils as videomme

    folder, clips = data
    rows = read_rows(folder, tmp_path)
    assert len(rows) == 3 * len(clips)
    assert len({row["question_id"] for row in rows}) == len(rows)
    for row in rows:
        assert list(row) == FIELDS
        assert row["duration"] in videomme.VIDEO_TYPE
        assert row["domain"] in videomme.CATEGORIES
        assert row["sub_category"] in videomme.SUB_CATEGORIES
        assert row["task_type"] in videomme.TASK_CATEGORIES
        assert [option[:3] for option in row["options"]] == ["A. ", "B. ", "C. ", "D. "]


def test_the_right_option_says_what_the_clip_shows(maker, data, tmp_path):
    folder, clips = data
    shown = {clip.video_id: {clip.colour, clip.direction, maker.DOTS[clip.num_dots - 1]} for clip in clips}
    for row in read_rows(folder, tmp_path):
        right = row["options"]["ABCD".index(row["answer"])]
        assert right[3:-1].lower() in shown[row["videoID"]]
        assert len(set(row["options"])) == 4


def test_every_letter_is_right_equally_often(data, tmp_path):
    folder, _ = data
    assert set(collections.Counter(row["answer"] for row in read_rows(folder, tmp_path)).values()) == {3}


def test_the_same_seed_gives_the_same_bytes_of_questions(maker, data, tmp_path):
    name = "test-00000-of-00001.parquet"
    folder, _ = data
    maker.write_dataset(tmp_path / "again", num_clips=4, seed=0)
    maker.write_dataset(tmp_path / "other", num_clips=4, seed=1)
    assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    assert (tmp_path / "other" / name).read_bytes() != (folder / name).read_bytes()
