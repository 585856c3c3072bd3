"""Weights of native models that are NaN or infinite: files and tensors are named when the model is loaded."""

import math
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from native_models.families import build, save
from stgridpool.adapters.native_loading import load_native
from stgridpool.checkpoint_files import stored_tensors
from stgridpool.finite_weights import check_native_finite, read_weights


@pytest.fixture
def damaged(tmp_path):
    """Function that writes a checkpoint with a number in its embeddings, and returns folder and name of these."""

    def write(value):
        save("qwen2_5_vl", tmp_path)
        weights = load_file(tmp_path / "model.safetensors")
        (name,) = (name for name in weights if name.endswith("embed_tokens.weight"))
        weights[name][5, 0] = value
        save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
        return tmp_path, name

    return write


@pytest.mark.parametrize(("value", "dtype"), [(math.nan, "float32"), (-math.inf, "bfloat16"), (1e6, "float16")])
def test_files_of_native_models_are_named(damaged, value, dtype):
    """No prompt of a run needs to contain the token whose embedding is damaged."""
    folder, name = damaged(value)
    message = f"weights are NaN or infinite in {folder / 'model.safetensors'} ({name})"
    if dtype == "float16":
        message = "weights are finite in the checkpoint and overflow in float16 ("
    with pytest.raises(ValueError, match=re.escape(message)):
        load_native(str(folder), device_map="cpu", dtype=getattr(torch, dtype), attn_implementation=None)


@pytest.mark.parametrize("place", ["meta", "integers"])
def test_files_are_read_for_offloaded_and_quantised_weights(damaged, place):
    """Neither shows NaN."""
    folder, name = damaged(math.nan)
    model = torch.nn.Linear(2, 2)
    weight = torch.zeros(2, 2, device="meta") if place == "meta" else torch.zeros(2, 2, dtype=torch.int8)
    model.weight = torch.nn.Parameter(weight, requires_grad=False)
    with pytest.raises(ValueError, match=re.escape(f"model.safetensors ({name})")):
        check_native_finite(model, stored_tensors(folder))


def test_files_are_not_read_a_second_time_for_weights_that_are_finite():
    check_native_finite(build("qwen2_5_vl")[0], {"missing": None})


def test_quantised_numbers_are_not_read(tmp_path):
    """A file may hold gigabytes of them; what they are scaled with can be NaN."""
    path, read = tmp_path / "model.safetensors", []
    numbers = {"a.scale": torch.tensor([1.0, math.nan]), "a.packed": torch.ones(64, dtype=torch.int32)}
    save_file(numbers | {"b.weight": torch.ones(8).to(torch.float8_e4m3fn)}, path)
    bad, overflowing = read_weights(stored_tensors(tmp_path), read.append)
    assert (bad, overflowing) == (
        f"weights are NaN or infinite in {path} (a.scale): copy or download the checkpoint again",
        None,
    )
    assert read == [8]
