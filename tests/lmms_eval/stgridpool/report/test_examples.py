"""Examples: questions that one run answers and another does not."""

import io

import av
import numpy as np
import pytest
from PIL import Image

from lmms_eval_stgridpool.report.examples import find_examples
from lmms_eval_stgridpool.report.runs import read_task_runs


@pytest.fixture
def runs(write_run):
    return read_task_runs([write_run("whole", "AAAAAA"), write_run("half", "BBAACA"), write_run("third", "BAAAAA")])


def test_runs_and_videos_take_turns(runs):
    found = find_examples(runs, None, 4, None)
    assert [(list(one.answers), one.video, one.question) for one in found] == [
        (["whole", "half"], "a", "question 0"),
        (["whole", "half"], "c", "question 4"),
        (["whole", "third"], "a", "question 0"),
        (["whole", "half"], "a", "question 1"),
    ]
    assert found[1].answers == {"whole": "A", "half": "C"}
    assert found[1].scores == {"whole": 1.0, "half": 0.0}
    assert found[1].truth == "A"


def test_pictures_are_frames_of_the_video(runs, tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=2, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(12):
            pixels = np.full((48, 64, 3), 20 * index, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    first, second = find_examples(runs, None, 2, tmp_path)
    greys = [np.asarray(Image.open(io.BytesIO(picture))).mean() for picture in first.pictures]
    assert len(greys) == 6
    assert greys == sorted(greys)
    assert greys[0] == pytest.approx(0, abs=3)
    assert greys[-1] == pytest.approx(220, abs=3)
    assert second.pictures == ()  # there is no c.mp4


def test_a_video_that_cannot_be_read_has_no_pictures(runs, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    (tmp_path / "c.srt").write_text("1")  # Video-MME's subtitles have the names of its videos
    found = find_examples(runs, None, 2, tmp_path)
    assert [(one.video, one.pictures) for one in found] == [("a", ()), ("c", ())]


def test_a_folder_that_is_missing(runs, tmp_path):
    with pytest.raises(ValueError, match=r"--videos .*nowhere: there is no such folder"):
        find_examples(runs, None, 2, tmp_path / "nowhere")
