"""Weights of native checkpoints that the model does not have, or that need a library: each is refused by name."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from native_models.families import BUILDERS, save
from stgridpool.adapters.native_checks import check_stored, read_config
from stgridpool.adapters.native_loading import load_native

pytestmark = pytest.mark.adapters


@pytest.fixture
def folder_with(tmp_path):
    """Function that writes a family's checkpoint with more settings, more tensors, or other dtypes of some."""

    def write(name="qwen2_5_vl", settings=None, tensors=None, dtypes=None):
        folder = save(name, tmp_path / name)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | (settings or {})))
        weights = load_file(folder / "model.safetensors") | (tensors or {})
        weights |= {key: weights[key].to(dtype) for key, dtype in (dtypes or {}).items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return write


def load(folder):
    return load_native(str(folder), device_map="cpu", dtype=torch.float32, attn_implementation=None)


def test_weights_that_the_model_does_not_have_are_refused(folder_with):
    folder = folder_with(tensors={"visual.extra.weight": torch.ones(2), "foo": torch.ones(2)})
    message = f"{folder} holds weights (2 in model.safetensors) that the model of its config.json does not have: "
    with pytest.raises(ValueError, match=re.escape(message) + r"foo, .*visual\.extra\.weight$"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("qwen3_5", "mtp.fc.weight"),
        ("qwen2_5_vl", "model.layers.0.self_attn.rotary_emb.inv_freq"),
        ("qwen2_5_vl", "visual.rotary_pos_emb.inv_freq"),
        ("llava_onevision", "vision_tower.vision_model.head.probe"),
        ("qwen2_5_vl", "v_head.summary.weight"),
    ],
)
def test_weights_that_inference_ignores_may_be_there(folder_with, name, tensor):
    folder = folder_with(name, tensors={tensor: torch.ones(2)})
    assert tensor in check_stored(folder)


def test_layers_that_predict_further_tokens_may_be_there(folder_with):
    """They follow the last layer; those after them are surplus."""
    name = "model.language_model.layers.{}.input_layernorm.weight"
    for after, more in ((0, 1), (1, 2), (0, 0), (1, 1)):
        folder = folder_with("glm4v_moe")
        config = json.loads((folder / "config.json").read_text())
        count = config["text_config"]["num_hidden_layers"]
        config["text_config"]["num_nextn_predict_layers"] = more
        (folder / "config.json").write_text(json.dumps(config))
        surplus = name.format(count + after)
        weights = load_file(folder / "model.safetensors") | {surplus: torch.ones(2)}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        if after < more:
            assert surplus in check_stored(folder)
        else:
            with pytest.raises(ValueError, match=f"has {count} layers in .*also holds .*layers.{count + after}"):
                check_stored(folder)


def test_weights_in_other_files_of_the_folder_are_nobodys_business(folder_with):
    folder = folder_with()
    save_file({"foo": torch.ones(2)}, folder / "consolidated.safetensors")
    assert "foo" not in check_stored(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_integers_are_no_weights_unless_quantised(folder_with, dtype):
    """transformers would take the integers for the weights."""
    name = "model.layers.0.mlp.down_proj.weight"
    folder = folder_with(dtypes={name: dtype})
    message = f"{folder / 'model.safetensors'}: {name} must hold floating-point numbers unless config.json has a "
    with pytest.raises(ValueError, match=re.escape(message) + "quantization_config, got (I8|F8_E4M3)"):
        load(folder)


@pytest.mark.parametrize(
    ("quantisation", "message"),
    [
        ({"quant_method": "gptq", "bits": 4}, "ImportError: Loading a GPTQ quantized model requires"),
        ({"quant_method": "awq", "bits": 4}, "ImportError: Loading an AWQ quantized model requires"),
        ({"load_in_4bit": True}, "ImportError: Using `bitsandbytes` 4-bit quantization requires"),
        ({"quant_method": "foo"}, "ValueError: quant_method 'foo' of quantization_config is unknown"),
        ({"bits": 4}, "ValueError: The model's quantization config .* has no `quant_method`"),
        ("gptq", "AttributeError: "),
    ],
)
@pytest.mark.parametrize("place", ["whole", "text_config"])
def test_quantised_weights_that_cannot_be_read_are_refused_in_one_line(
    folder_with, monkeypatch, place, quantisation, message
):
    for library in ("optimum", "gptqmodel", "bitsandbytes"):
        monkeypatch.setattr(f"transformers.utils.import_utils.is_{library}_available", lambda *_, **__: False)
    folder = folder_with()
    config = json.loads((folder / "config.json").read_text())
    (config if place == "whole" else config[place])["quantization_config"] = quantisation
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=f"^no model can be built from {folder} with its config.json: {message}"
    ) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_an_empty_quantisation_is_none(folder_with):
    folder = folder_with(settings={"quantization_config": {}}, tensors={"foo": torch.ones(2)})
    with pytest.raises(ValueError, match=r"that the model of its config\.json does not have: foo"):
        check_stored(folder)


def test_settings_that_only_transformers_judges_are_named(folder_with):
    with pytest.raises(ValueError, match=r"no model can be built from .*model type `None`"):
        read_config(folder_with(settings={"model_type": None}), {})
    with pytest.raises(ValueError, match=r"no model can be built from .*AttributeError: module 'torch' has no .*'foo'"):
        check_stored(folder_with(settings={"dtype": "foo"}))
    text = {
        "text_config": json.loads((folder_with() / "config.json").read_text())["text_config"] | {"pad_token_id": 10**9}
    }
    with pytest.raises(ValueError, match=r"no model can be built from .*AssertionError: Padding_idx"):
        check_stored(folder_with(settings=text))


def test_nothing_is_printed(folder_with, capfd):
    """transformers would show the progress of loading no weight, and a table of what it finds."""
    right, wrong = folder_with(), folder_with("qwen2_vl", tensors={"foo": torch.ones(2)})
    capfd.readouterr()
    logging.enable_progress_bar()
    verbosity = logging.get_verbosity()
    check_stored(right)
    with pytest.raises(ValueError, match="foo"):
        check_stored(wrong)
    assert capfd.readouterr() == ("", "")
    assert (logging.is_progress_bar_enabled(), logging.get_verbosity()) == (True, verbosity)


@pytest.mark.parametrize("token", [264, -1, "x", [7, 264]])
def test_an_end_token_outside_the_vocabulary_is_refused(folder_with, token):
    """Generation would never end, or end the program."""
    folder = folder_with()
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": token}))
    wrong = 264 if isinstance(token, list) else token
    message = (
        f"{folder / 'generation_config.json'}: eos_token_id must be from 0 to 263, as vocab_size says, got {wrong!r}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load(folder)
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"generation_config\.json is not valid JSON"):
        check_stored(folder)


@pytest.mark.skipif("molmo2" not in BUILDERS, reason="this version of transformers has no family of joined projections")
def test_tensors_that_cannot_be_converted_are_named(folder_with, capfd):
    """transformers logs a table of tracebacks, and raises an error that says to look at it."""
    folder = folder_with("molmo2")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_key_value_heads"] = 1
    (folder / "config.json").write_text(json.dumps(config))
    capfd.readouterr()
    message = (
        r"RuntimeError: .* for model\.language_model\.layers\.\d\.self_attn\.q_proj\.weight.* got .*\[64, 16, 16\]"
    )
    with pytest.raises(ValueError, match=f"^no model can be built from {folder} with its config.json: {message}$"):
        check_stored(folder)
    assert capfd.readouterr() == ("", "")
