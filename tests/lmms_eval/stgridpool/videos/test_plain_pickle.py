"""Pickles are read without running anything that they ask for."""

import collections
import os
import pickle

import pytest
import torch

from lmms_eval_stgridpool.videos.plain_pickle import LARGEST, read_plain_pickle


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_back(tmp_path, protocol):
    data = {"vid": "a", "video_time": 1.5, "num_frames": 2, "more": [None, True, (1, b"2"), {"x": "é"}]}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(data, protocol))
    if protocol >= 3:  # older ones spell bytes as a call
        assert read_plain_pickle(tmp_path / "a.pkl") == data


def test_nothing_is_run(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"vid": Trap(tmp_path / "made")}))
    with pytest.raises(ValueError, match=r"a pickle of plain data: it holds a .*mkdir, and only plain data is read"):
        read_plain_pickle(tmp_path / "a.pkl")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("value", [torch.zeros(1), collections.OrderedDict(a=1), complex(1, 2)])
def test_other_types_are_refused(tmp_path, value):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(ValueError, match="only plain data is read"):
        read_plain_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x04", pickle.dumps([1, 2])[:-2], b"c", b"0."])
def test_what_is_not_a_pickle_is_refused(tmp_path, content):
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(ValueError, match="is not a pickle of plain data"):
        read_plain_pickle(tmp_path / "a.pkl")


def test_a_large_file_is_not_read(tmp_path):
    with (tmp_path / "a.pkl").open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(ValueError, match=f"has {LARGEST + 1} bytes, and metadata at most {LARGEST}"):
        read_plain_pickle(tmp_path / "a.pkl")
