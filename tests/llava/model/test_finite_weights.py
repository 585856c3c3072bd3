"""Weights that are NaN or infinite: a model with them is refused, and file and tensor are named."""

import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SiglipVisionConfig, SiglipVisionModel

from llava.model.builder import load_pretrained_model
from llava.model.finite_weights import check_finite
from stgridpool.checkpoint_files import stored_tensors

NAMES = {
    "decoder": "model.layers.1.mlp.up_proj.weight",
    "projector": "model.mm_projector.0.bias",
    "tower": "model.vision_tower.vision_tower.vision_model.encoder.layers.1.mlp.fc1.weight",
    "unused rows": "lm_head.weight",
}


def load(folder, dtype="float32", **options):
    return load_pretrained_model(str(folder), None, "x", torch_dtype=dtype, attn_implementation="sdpa", **options)[1]


def with_value(name, value):
    """A function that puts `value` at the end of a weight."""

    def change(weights):
        tensor = weights[name].clone()
        tensor.view(-1)[-1] = value
        return weights | {name: tensor}

    return change


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_the_file_is_named(copied, name, value):
    folder = copied(weights=with_value(name, value))
    message = f"weights are NaN or infinite in {folder / 'model.safetensors'} ({name}): copy or download"
    with pytest.raises(ValueError, match=re.escape(message)):
        load(folder)


def test_every_file_is_named(copied):
    folder = copied("ckpt-ov")
    bad = {"model-00001-of-00003": ["model.image_newline"], "model-00002-of-00003": ["model.norm.weight"]}
    bad["model-00003-of-00003"] = [
        f"model.mm_projector.{number}.{part}" for number in (0, 2) for part in ("bias", "weight")
    ]
    for file, names in bad.items():
        weights = load_file(folder / f"{file}.safetensors")
        for name in names:
            weights[name].fill_(float("nan"))
        save_file(weights, folder / f"{file}.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="weights are NaN or infinite in") as caught:
        load(folder, "auto")
    for file, names in bad.items():
        assert f"{folder / file}.safetensors ({', '.join(names[:3])}" in str(caught.value)
    assert "model.mm_projector.2.bias and 1 more)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_overflow_names_the_dtype(copied):
    name = NAMES["decoder"]
    folder = copied(weights=with_value(name, 1e5))
    load(folder, "bfloat16")
    message = f"weights are finite in the checkpoint and overflow in float16 ({name}): load with torch_dtype bfloat16"
    with pytest.raises(ValueError, match=re.escape(message)):
        load(folder, "float16")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_large_finite_weights_pass(copied, dtype):
    """The largest number of float16, and numbers whose sum and difference overflow."""
    folder = copied(weights=lambda weights: weights | {"lm_head.weight": torch.full((448, 64), 65504.0)})
    load(folder, dtype)


def test_weights_that_are_not_loaded_are_not_judged(copied):
    load(copied(weights=lambda weights: weights | {"model.faster_token": torch.full((64,), float("nan"))}))


@pytest.mark.parametrize("name", [NAMES["decoder"], "model.layers.1.input_layernorm.weight"])
def test_offloaded_weights_are_read_from_their_files(copied, tmp_path, name):
    folder = copied(weights=with_value(name, float("nan")))
    devices = {"model.embed_tokens": "cpu", "model.vision_tower": "cpu", "model.mm_projector": "cpu", "lm_head": "cpu"}
    devices |= {"model.norm": "cpu", "model.rotary_emb": "cpu", "model.image_newline": "cpu", "model.layers.0": "cpu"}
    with pytest.raises(ValueError, match=re.escape(f"model.safetensors ({name})")):
        load(folder, device_map={**devices, "model.layers.1": "disk"}, offload_folder=str(tmp_path / "offload"))


def test_quantised_weights_are_read_from_their_files(copied, llava_golden):
    """Eight-bit integers show no NaN: what the file holds is judged."""
    good = llava_golden / "ckpt-video"
    model = load(good)
    layer = model.model.layers[1].mlp.up_proj
    layer.weight = torch.nn.Parameter(torch.zeros_like(layer.weight, dtype=torch.int8), requires_grad=False)
    check_finite(model, stored_tensors(good))
    folder = copied(weights=with_value(NAMES["decoder"], float("nan")))
    with pytest.raises(ValueError, match=re.escape(f"model.safetensors ({NAMES['decoder']})")):
        check_finite(model, stored_tensors(folder))


def test_one_wait_for_all_weights(llava_golden, monkeypatch):
    """Values leave the device once, however many weights there are."""
    folder = llava_golden / "ckpt-video"
    model = load(folder)
    waits = []
    real = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: waits.append(tensor.shape) or real(tensor))
    for name in ("item", "__bool__", "__float__", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_: pytest.fail("waits for one weight"))
    check_finite(model, stored_tensors(folder))
    assert waits == [(len(model.state_dict()),)]


def test_a_named_tower_is_judged(make_checkpoint, tmp_path):
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    tower = SiglipVisionModel(SiglipVisionConfig(**sizes, image_size=28, patch_size=7, vision_use_head=False))
    tower.get_parameter("encoder.layers.0.mlp.fc1.bias").data[3] = float("nan")
    tower.save_pretrained(tmp_path / "siglip")
    settings = {"mm_vision_tower": str(tmp_path / "siglip"), "mm_hidden_size": 24, "mm_tunable_parts": None}
    folder, _ = make_checkpoint(without="model.vision_tower", **settings)
    message = "weights are NaN or infinite in the vision tower that mm_vision_tower names ("
    with pytest.raises(ValueError, match=re.escape(message) + r".*encoder\.layers\.0\.mlp\.fc1\.bias"):
        load(folder)
