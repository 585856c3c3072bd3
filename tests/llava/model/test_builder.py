"""Loading: what is accepted, what is an error, what is set up."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from llava.model.builder import _attention, _quantization, load_pretrained_model
from llava.model.language_model.llava_llama import LlavaConfig
from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM
from stgridpool import Bilinear, STGridPool, build_compressor


def load(folder, name="llava_qwen", **options):
    options = {"torch_dtype": "float32", "attn_implementation": "sdpa", **options}
    return load_pretrained_model(str(folder), None, name, **options)


def stored_keys(folder: Path) -> set[str]:
    keys = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            keys |= set(tensors.keys())
    return keys


@pytest.mark.parametrize("model_type", ["llava", "qwen2", "llava_qwen"])
def test_the_architecture_decides_not_the_model_type(copied, model_type):
    _, model, _, context = load(copied(model_type=model_type), name="any-name")
    assert type(model) is LlavaQwenForCausalLM
    assert model.config.model_type == "llava_qwen"
    assert context == 4096


def test_without_architectures_the_fields_decide(copied):
    assert type(load(copied(without=("architectures",)))[1]) is LlavaQwenForCausalLM


@pytest.mark.parametrize(
    "settings",
    [{"architectures": ["LlavaLlamaForCausalLM"]}, {"mm_vision_tower": None}, {"architectures": ["Qwen2ForCausalLM"]}],
)
def test_other_checkpoints_are_rejected(copied, settings):
    with pytest.raises(ValueError, match="is not a LLaVA checkpoint on Qwen2"):
        load(copied(**settings))


def test_native_checkpoints_are_rejected_with_the_way_out(copied):
    folder = copied(model_type="llava_onevision", architectures=["LlavaOnevisionForConditionalGeneration"])
    with pytest.raises(ValueError, match=r"; scripts/convert_checkpoint\.py makes one of it"):
        load(folder)


def test_vocabulary_is_cut_to_the_tokenizer(video_checkpoint, ov_checkpoint, video_cases):
    for checkpoint in (video_checkpoint, ov_checkpoint):
        model, length = checkpoint.model, len(checkpoint.tokenizer)
        assert length == video_cases["len_tokenizer"] == model.config.vocab_size
        assert model.get_input_embeddings().weight.shape[0] == model.lm_head.weight.shape[0] == length
    tied = ov_checkpoint.model
    assert tied.lm_head.weight is tied.get_input_embeddings().weight
    assert video_checkpoint.model.lm_head.weight is not video_checkpoint.model.get_input_embeddings().weight


def test_a_tokenizer_that_is_too_long_is_rejected(copied):
    folder = copied()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<extra{index}>" for index in range(80)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match="has 467 tokens and the checkpoint only 448 embeddings"):
        load(folder)


@pytest.mark.parametrize(
    ("settings", "added"),
    [
        ({"mm_use_im_patch_token": True}, ["<im_patch>"]),
        ({"mm_use_im_start_end": True}, ["<im_start>", "<im_end>"]),
        ({"without": ("mm_use_im_patch_token",)}, ["<im_patch>"]),
    ],
)
def test_image_tokens(copied, settings, added):
    tokenizer, model, _, _ = load(copied(**settings))
    assert len(tokenizer) == 387 + len(added) == model.config.vocab_size
    assert tokenizer.convert_tokens_to_ids(added) == list(range(387, 387 + len(added)))


def test_a_tokenizer_without_tokenizer_json(copied, video_checkpoint):
    folder = copied(model_type="llava")
    (folder / "tokenizer.json").unlink()
    text = "<|im_start|>user\nWhich object moves first?<|im_end|>\n"
    assert load(folder)[0](text).input_ids == video_checkpoint.tokenizer(text).input_ids


@pytest.mark.parametrize(
    "key",
    [
        "lm_head.weight",
        "model.image_newline",
        "model.mm_projector.2.bias",
        "model.layers.1.mlp.up_proj.weight",
        "model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
    ],
)
def test_a_missing_weight_is_an_error(copied, key):
    folder = copied(weights=lambda tensors: {name: value for name, value in tensors.items() if name != key})
    last = key.rsplit(".", 3)[-3:]
    with pytest.raises(ValueError, match=r"the checkpoint lacks weights \(1\): .*" + r"\.".join(last)):
        load(folder)


def test_unknown_weights_are_an_error_and_known_leftovers_are_not(copied):
    harmless = ["model.faster_token", "model.layers.0.self_attn.rotary_emb.inv_freq"]
    harmless += ["model.vision_tower.vision_tower.vision_model.head.probe"]
    folder = copied(weights=lambda tensors: tensors | {key: torch.zeros(1) for key in harmless})
    load(folder)
    shutil.rmtree(folder)
    folder = copied(weights=lambda tensors: tensors | {"model.adapter.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"holds unknown weights \(1\): model.adapter.weight"):
        load(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"add_faster_video": True}, "add_faster_video=True is not supported"),
        ({"mm_resampler_type": "qformer"}, "mm_resampler_type must be null, got 'qformer'"),
        ({"mm_projector_type": "mlp2x_res"}, "mm_projector_type must be linear"),
        ({"mm_hidden_size": 33}, "mm_hidden_size must be 32"),
        ({"mm_vision_tower": "imagebind_huge", "vision_config": None}, "supported are SigLIP"),
    ],
)
def test_settings_that_are_not_supported(copied, settings, message):
    with pytest.raises(ValueError, match=message):
        load(copied(**settings))


def test_lora_and_model_base_are_not_supported(copied, llava_golden):
    with pytest.raises(NotImplementedError, match="model_base are not supported: merge"):
        load_pretrained_model(str(llava_golden / "ckpt-video"), "some/base", "llava_qwen")
    folder = copied()
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(NotImplementedError, match="LoRA"):
        load(folder)


def test_options(llava_golden):
    folder = llava_golden / "ckpt-video"
    load(folder, multimodal=True)
    with pytest.raises(ValueError, match="unknown options"):
        load(folder, use_flash=True)
    with pytest.raises(ValueError, match="torch_dtype must be one of float16"):
        load(folder, torch_dtype="int8")


@pytest.mark.parametrize(
    ("given", "dtype"),
    [("float16", torch.float16), ("bfloat16", torch.bfloat16), (torch.float32, torch.float32), ("auto", torch.float32)],
)
def test_dtypes_leave_the_rotary_frequencies_alone(llava_golden, given, dtype):
    model = load(llava_golden / "ckpt-video", torch_dtype=given)[1]
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert model.config.rope_parameters["rope_theta"] == 1e6


def test_overwritten_settings_are_in_force(llava_golden):
    overwrites = {
        "mm_spatial_pool_mode": "average",
        "mm_newline_position": "frame",
        "mm_pooling_position": "before",
        "rope_scaling": {"factor": 2.0, "type": "linear"},
        "max_sequence_length": 8192,
        "tokenizer_model_max_length": 8192,
    }
    _, model, _, context = load(llava_golden / "ckpt-video", overwrite_config=overwrites)
    config = model.config
    assert context == 8192 == config.tokenizer_model_max_length
    assert repr(model.compressor).startswith("Average")
    assert (config.mm_newline_position, config.mm_pooling_position) == ("frame", "before")
    assert {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e6}.items() <= config.rope_parameters.items()


def test_null_settings_are_defaults(copied):
    config = load(copied(mm_newline_position=None, mm_spatial_pool_mode=None, mm_use_im_start_end=None))[1].config
    assert (config.mm_newline_position, config.mm_spatial_pool_mode) == ("one_token", "bilinear")
    assert config.mm_use_im_start_end is False


def test_a_customized_config_replaces_the_checkpoints(llava_golden, tmp_path):
    folder = llava_golden / "ckpt-video"
    settings = json.loads((folder / "config.json").read_text()) | {"mm_newline_position": "no_token"}
    path = tmp_path / "custom.json"
    path.write_text(json.dumps(settings))
    assert load(folder, customized_config=str(path))[1].config.mm_newline_position == "no_token"
    config = LlavaQwenConfig.from_dict(settings)
    assert load(folder, customized_config=config)[1].config.mm_newline_position == "no_token"


def test_the_compressor_is_the_one_asked_for(llava_golden):
    folder = llava_golden / "ckpt-video"
    compressor = build_compressor("st_gridpool", preset="paper")
    assert load(folder)[1].compressor == Bilinear()
    assert load(folder, compressor="st_gridpool")[1].compressor == STGridPool()
    assert load(folder, compressor=compressor)[1].compressor is compressor
    with pytest.raises(ValueError, match="did you mean 'st_gridpool'"):
        load(folder, compressor="st_gridpol")


def test_flash_attention_falls_back_with_one_warning(llava_golden, caplog, monkeypatch):
    monkeypatch.setattr("llava.model.builder.is_flash_attn_2_available", lambda: False)
    with caplog.at_level(logging.WARNING):
        model = load(llava_golden / "ckpt-video", attn_implementation="flash_attention_2")[1]
    assert model.config._attn_implementation == "sdpa"
    assert model.get_vision_tower().vision_tower.config._attn_implementation == "sdpa"
    assert [record.message for record in caplog.records if "flash" in record.message] == [
        "flash_attention_2 was asked for and flash-attn is not installed: using sdpa"
    ]
    monkeypatch.setattr("llava.model.builder.is_flash_attn_2_available", lambda: True)
    assert _attention("flash_attention_2") == "flash_attention_2"


def test_eager_attention_reaches_both_models(llava_golden):
    model = load(llava_golden / "ckpt-video", attn_implementation="eager")[1]
    assert model.config._attn_implementation == "eager"
    assert model.get_vision_tower().vision_tower.config._attn_implementation == "eager"


def test_quantisation_settings_keep_the_visual_parts():
    eight, four = _quantization(True, False, torch.float16), _quantization(False, True, torch.bfloat16)
    assert eight.load_in_8bit
    assert four.load_in_4bit
    assert (four.bnb_4bit_compute_dtype, four.bnb_4bit_quant_type) == (torch.bfloat16, "nf4")
    for settings in (eight, four):
        assert settings.llm_int8_skip_modules == ["vision_tower", "mm_projector", "lm_head"]
    assert _quantization(False, False, torch.float16) is None
    with pytest.raises(ValueError, match="exclude each other"):
        _quantization(True, True, torch.float16)


@pytest.mark.parametrize("name", ["ckpt-video", "ckpt-ov"])
def test_saving_writes_the_original_names(llava_golden, tmp_path, name):
    model = load(llava_golden / name, torch_dtype="auto")[1]
    model.save_pretrained(tmp_path / "saved", max_shard_size="100KB" if name == "ckpt-ov" else "1GB")
    assert stored_keys(tmp_path / "saved") == stored_keys(llava_golden / name)
    for file in llava_golden.joinpath(name).glob("*token*.json"):
        shutil.copy(file, tmp_path / "saved" / file.name)
    again = load(tmp_path / "saved", torch_dtype="auto")[1]
    before, after = model.state_dict(), again.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_configurations_are_registered(llava_golden, tmp_path):
    assert type(AutoConfig.from_pretrained(llava_golden / "ckpt-video")) is LlavaQwenConfig
    assert LlavaConfig.model_type == "llava_llama"
    AutoConfig.register("llava_llama", LlavaConfig, exist_ok=True)
    assert type(AutoModelForCausalLM.from_pretrained(llava_golden / "ckpt-video")) is LlavaQwenForCausalLM
    assert "image_aspect_ratio" not in vars(LlavaQwenConfig())


def test_loading_holds_the_weights_once(make_checkpoint, llava_golden, memory_of_loading):
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 5, "vocab_size": 6000}
    vision = json.loads((llava_golden / "ckpt-video" / "config.json").read_text())["vision_config"]
    folder, model = make_checkpoint(vision_config=vision, **sizes)
    assert sum(parameter.numel() for parameter in model.parameters()) * 4 > 150e6
    del model
    assert 0.9 < memory_of_loading(llava_golden / "ckpt-video", folder) < 1.4
