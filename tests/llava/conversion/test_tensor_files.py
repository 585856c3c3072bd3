"""Files rewritten with other names are those that the safetensors library writes."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.conversion import tensor_files
from llava.conversion.tensor_files import rewrite

TENSORS = {
    "a": torch.arange(12, dtype=torch.float32).view(4, 3),
    "b": torch.arange(5, dtype=torch.bfloat16),
    "c": torch.tensor(7, dtype=torch.int64),
    "d": torch.zeros(0, 3),
}


@pytest.fixture(params=[3, 2**20])
def _piece(request, monkeypatch):
    monkeypatch.setattr(tensor_files, "PIECE", request.param)


@pytest.mark.usefixtures("_piece")
def test_same_names_give_the_same_file(tmp_path):
    save_file(TENSORS, tmp_path / "one", metadata={"format": "pt"})
    sizes = rewrite(tmp_path / "one", tmp_path / "other", {name: name for name in TENSORS}, {})
    assert (tmp_path / "other").read_bytes() == (tmp_path / "one").read_bytes()
    assert sizes == {"a": 48, "b": 10, "c": 8, "d": 0}


@pytest.mark.usefixtures("_piece")
def test_renamed_left_out_cut_and_extended(tmp_path):
    save_file(TENSORS, tmp_path / "one")
    rewrite(tmp_path / "one", tmp_path / "other", {"a": "ä.long", "b": "b"}, {"a": 2, "b": 8})
    found = load_file(tmp_path / "other")
    assert set(found) == {"ä.long", "b"}
    assert torch.equal(found["ä.long"], TENSORS["a"][:2])
    assert torch.equal(found["b"], torch.cat([TENSORS["b"], torch.zeros(3, dtype=torch.bfloat16)]))
