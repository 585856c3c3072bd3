"""Paths are never empty, and folders of others are left alone."""

import argparse
import os
from pathlib import Path

import pytest

from lmms_eval_stgridpool.kept.paths import (
    LONGEST_NAME,
    MARKER,
    check_path,
    folder_name,
    make_folder,
    own_folder,
    path_argument,
    read_regular_file,
)


@pytest.mark.parametrize("text", ["", " ", "\t\n"])
def test_an_empty_path_is_refused(text):
    with pytest.raises(ValueError, match="resume_dir must be a path, got an empty text; is it a shell variable"):
        check_path("resume_dir", text)
    with pytest.raises(argparse.ArgumentTypeError, match="got an empty text"):
        path_argument(text)
    with pytest.raises(ValueError, match="x must be a path"):
        make_folder("x", text)


@pytest.mark.parametrize("value", [7, 1e5, True, None])
def test_a_number_is_not_a_path(value):
    with pytest.raises(TypeError, match=f"pretrained must be a path, got {value}; a folder of that name is written"):
        check_path("pretrained", value)


def test_paths_are_taken_as_they_are():
    check_path("x", "a folder/ä")
    check_path("x", Path("a"))
    assert path_argument("~/a b") == Path("~/a b")


def test_a_folder_of_ours_is_made_and_taken_again(tmp_path):
    for _ in range(2):
        assert own_folder("data", tmp_path / "deep" / "data") == tmp_path / "deep" / "data"
        (tmp_path / "deep" / "data" / "clip.mp4").touch()
    assert "data: made by stgridpool" in (tmp_path / "deep" / "data" / MARKER).read_text()
    (tmp_path / "empty").mkdir()
    own_folder("data", tmp_path / "empty")


def test_a_folder_of_others_is_refused_and_stays_as_it_is(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(
        FileExistsError, match=r"data must be a folder for this purpose alone, .* has other files, such as thesis.tex"
    ):
        own_folder("data", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("nowhere"), Path.mkdir])
def test_a_marker_that_is_not_a_file_marks_nothing(tmp_path, make):
    make(tmp_path / MARKER)
    with pytest.raises(FileExistsError, match="has other files, such as"):
        own_folder("data", tmp_path)


def test_what_is_not_a_folder_is_said(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link"):
        with pytest.raises(NotADirectoryError, match=rf"data must be a folder, and .*{name} is not one"):
            own_folder("data", tmp_path / name)


def test_only_regular_files_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("file")
    assert read_regular_file(tmp_path / "link") == b"1"
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "missing", "."):
        with pytest.raises(OSError, match=r"not a regular file|No such file|Is a directory"):
            read_regular_file(tmp_path / name)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["st_gridpool"], "st_gridpool"),
        (["a+b", "fps=0.5"], "a+b_fps=0.5"),
        # sha256sum of nsp_compressor_args={"kernel_size":3} and of a-b_--limit_20
        (["nsp", 'compressor_args={"kernel_size":3}'], "nsp_compressor_args=-kernel_size-3-a8ece64d"),
        (["a-b", "--limit", "20"], "a-b_-limit_20-c6ae8fc5"),
    ],
)
def test_options_name_a_folder(words, name):
    assert folder_name(words) == name


@pytest.mark.parametrize(
    ("one", "other"), [('x={"a":1}', 'x={"a":-1}'), ("a/b.csv", "a-b.csv"), ("x=[1, 2]", "x=[1,2]")]
)
def test_replaced_characters_tell_folders_apart(one, other):
    assert folder_name([one]) != folder_name([other])


def test_long_options_name_different_folders():
    long = "x" * 300
    names = {folder_name(["nsp", long, end]) for end in "ab"}
    assert len(names) == 2
    assert {len(name) for name in names} == {LONGEST_NAME}
