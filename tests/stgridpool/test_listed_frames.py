"""Frames listed in a file: what is read, and what is refused."""

import json

import pytest

from stgridpool.listed_frames import ListedFrames


@pytest.fixture
def listed(tmp_path):
    """Function that writes a file and returns what asks for it."""

    def write(content):
        path = tmp_path / "frames.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return ListedFrames(str(path))

    return write


def test_frames_are_marked(listed):
    need = listed({"v1.mp4": [4, 0, 4], "folder": [1]})
    assert need.marks("v1.mp4", 5).tolist() == [1, 0, 0, 0, 1]
    assert need.marks("folder", 2).tolist() == [0, 1]
    assert not need.query_aware
    assert not need.from_tower


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"v2.mp4": [0]}, r"frames.json lists no frames of 'v1.mp4'; add them under this name"),
        ({"v1.mp4": []}, "whole numbers from 0 to 4, at least one, got \\[\\]"),
        ({"v1.mp4": [0, 5]}, r"whole numbers from 0 to 4, at least one, got \[0, 5\]"),
        ({"v1.mp4": [-1]}, "from 0 to 4"),
        ({"v1.mp4": [True]}, "from 0 to 4"),
        ({"v1.mp4": 3}, "from 0 to 4"),
        ([1], "must be a JSON object"),
        ("{", "must be JSON"),
    ],
)
def test_what_is_no_list_of_frames_is_refused(listed, content, message):
    with pytest.raises(ValueError, match=message):
        listed(content).marks("v1.mp4", 5)


def test_a_message_repeats_the_beginning_of_a_file(listed):
    for content in ("[" * 3 + "0," * 5000, json.dumps([0] * 5000), "[" * 100_000):
        with pytest.raises(ValueError, match=r"frames.json (must be|is nested)") as raised:
            listed(content).marks("v1.mp4", 5)
        assert len(str(raised.value)) < 600


def test_the_digest_is_that_of_the_content(listed):
    first = listed({"v1.mp4": [0]})
    before = first.digest()
    assert before == "700cfb23a6ea867ce1b4b4b938b7302ec4c27f70d687490a8c761fa17031c0f3"
    assert listed({"v1.mp4": [1]}).digest() != before
    assert first.marks("v1.mp4", 2).tolist() == [0, 1]  # nothing stale
    assert listed({"v1.mp4": [0]}).digest() == before


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"the list of frames .*missing.json' cannot be read"):
        ListedFrames(str(tmp_path / "missing.json")).marks("v1.mp4", 5)
    with pytest.raises(ValueError, match="file must not be empty"):
        ListedFrames("")
