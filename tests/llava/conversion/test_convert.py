"""Conversion and back, bit for bit; what is refused; and folders that appear whole or not at all."""

import json
import shutil
import tracemalloc
from collections import namedtuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor

from llava.conversion import convert as module
from llava.conversion import tensor_files
from llava.conversion.convert import convert
from llava.model.builder import load_pretrained_model


def assert_same_files(one, other):
    names = {path.name for path in one.iterdir()}
    assert names == {path.name for path in other.iterdir()}
    for name in names:
        if name.endswith(".json"):
            assert json.loads((one / name).read_text()) == json.loads((other / name).read_text()), name
        else:
            assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize("name", ["ckpt-video", "ckpt-ov"])  # one file, untied; three files, tied, bfloat16
def test_there_and_back_is_the_same_bit_for_bit(llava_golden, tmp_path, name):
    convert(str(llava_golden / name), tmp_path / "native", verify=False)
    convert(str(tmp_path / "native"), tmp_path / "back", verify=False)
    assert_same_files(llava_golden / name, tmp_path / "back")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "native"]


@pytest.mark.contract
def test_the_native_class_finds_every_weight_bit_for_bit(llava_golden, tmp_path):
    convert(str(llava_golden / "ckpt-video"), tmp_path / "native", verify=False)
    model, info = LlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path / "native", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    original = load_file(llava_golden / "ckpt-video" / "model.safetensors")
    tower = "model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight"
    parts = {
        "lm_head.weight": model.lm_head.weight,
        "model.image_newline": model.model.image_newline,
        "model.mm_projector.2.bias": model.model.multi_modal_projector.linear_2.bias,
        "model.layers.1.self_attn.k_proj.bias": model.model.language_model.layers[1].self_attn.k_proj.bias,
        tower: dict(model.model.vision_tower.named_modules())[_deepest(model, "layers.0.mlp.fc1")].weight,
    }
    for name, parameter in parts.items():
        assert torch.equal(parameter, original[name]), name


def _deepest(model, end):
    return next(name for name, _ in model.model.vision_tower.named_modules() if name.endswith(end))


def test_text_settings_arrive(llava_golden, tmp_path):
    convert(str(llava_golden / "ckpt-video"), tmp_path / "native", verify=False)
    config = LlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path / "native").config
    assert config.text_config.rope_parameters["rope_theta"] == 1e6  # Qwen2Config's own default is 1e4
    assert config.text_config.num_key_value_heads == 2
    assert config.vision_config.num_hidden_layers == 2  # of 3: LLaVA drops the last one
    assert config.mm_newline_position == "grid"


def test_the_base_of_positions_arrives_as_transformers_5_writes_it(llava_golden, tmp_path, edit_json):
    shutil.copytree(llava_golden / "ckpt-video", tmp_path / "original")
    rope = {"rope_type": "default", "rope_theta": 5e5}
    edit_json(tmp_path / "original" / "config.json", rope_theta=None, rope_scaling=None, rope_parameters=rope)
    convert(str(tmp_path / "original"), tmp_path / "native", verify=False)
    config = LlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path / "native").config
    assert config.text_config.rope_parameters["rope_theta"] == 5e5


@pytest.mark.contract
@torch.inference_mode()
def test_gives_the_ids_of_the_original_code(llava_golden, tmp_path, video_checkpoint, video_frames, video_cases):
    convert(str(llava_golden / "ckpt-video"), tmp_path / "native", verify=False)
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path / "native", dtype=torch.float32)
    for name in ("video_one_token", "text_only"):
        case = video_cases["generate"][name]
        frames = video_frames[slice(*case["images"][0])] if case["images"] else None
        place = case["input_ids"].index(-200) if case["images"] else 0
        count = 4 * 4 * 4 + 1 if case["images"] else 0  # four frames of 7x7 patches, pooled to 4x4, and a newline
        ids = (
            case["input_ids"][:place]
            + count * [model.config.video_token_index]
            + case["input_ids"][place + (count > 0) :]
        )
        visuals = {} if frames is None else {"pixel_values_videos": frames[None]}
        prompt = torch.tensor([ids])
        answer = model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), **visuals, max_new_tokens=20, do_sample=False
        )
        assert answer[0, len(ids) :].tolist() == case["ids"], name


def test_answers_are_compared_in_both_directions(llava_golden, tmp_path):
    notes = convert(str(llava_golden / "ckpt-ov"), tmp_path / "native")
    assert any(note.startswith("repetition_penalty=1.05") for note in notes)
    assert convert(str(tmp_path / "native"), tmp_path / "back") == []


def test_other_answers_leave_nothing(llava_golden, tmp_path, monkeypatch):
    def zeroed(source, target, names, rows):
        sizes = tensor_files.rewrite(source, target, names, rows)
        weights = load_file(target)
        weights["multi_modal_projector.linear_2.weight"].zero_()
        save_file(weights, target, metadata={"format": "pt"})
        return sizes

    monkeypatch.setattr(module, "rewrite", zeroed)
    with pytest.raises(ValueError, match=r"answer the (image|video) prompt with ids .* in LLaVA-NeXT's format and"):
        convert(str(llava_golden / "ckpt-video"), tmp_path / "native")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()])
def test_interrupted_conversion_leaves_nothing(llava_golden, tmp_path, monkeypatch, error):
    calls = []

    def interrupted(source, target, names, rows):
        calls.append(target)
        if len(calls) == 2:
            raise error
        return tensor_files.rewrite(source, target, names, rows)

    monkeypatch.setattr(module, "rewrite", interrupted)
    with pytest.raises(type(error)):
        convert(str(llava_golden / "ckpt-ov"), tmp_path / "native", verify=False)
    assert len(calls) == 2
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(llava_golden, tmp_path):
    (tmp_path / "native").mkdir()
    with pytest.raises(ValueError, match="native exists, and nothing is overwritten: name a new folder, or remove it"):
        convert(str(llava_golden / "ckpt-video"), tmp_path / "native", verify=False)
    with pytest.raises(ValueError, match="nowhere is not a folder: create it first"):
        convert(str(llava_golden / "ckpt-video"), tmp_path / "nowhere" / "native", verify=False)


def test_a_full_disk_is_noticed_beforehand(llava_golden, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1))
    with pytest.raises(ValueError, match=r"the weights take 0\.0 GB, and .* has 0\.0 GB: free some"):
        convert(str(llava_golden / "ckpt-video"), tmp_path / "native", verify=False)


def test_memory_does_not_grow_with_the_weights(copied, tmp_path, monkeypatch):
    """46 MB in 69 files, a tensor each, the largest of 5 MB: less than one of them is ever in memory."""
    wide = 20000

    def widened(weights):
        for name in list(weights):
            if ".mlp." in name and "vision" not in name:
                shape = (64, wide) if "down_proj" in name else (wide, 64)
                weights[name] = torch.randn(shape)
        return weights

    folder = copied(weights=widened, intermediate_size=wide)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {}
    for number, (name, tensor) in enumerate(tensors.items()):
        places[name] = f"model-{number + 1:05d}-of-{len(tensors):05d}.safetensors"
        save_file({name: tensor}, folder / places[name], metadata={"format": "pt"})
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert total > 30e6

    monkeypatch.setattr(tensor_files, "PIECE", 2**16)
    tracemalloc.start()
    convert(str(folder), tmp_path / "native", verify=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6
    convert(str(tmp_path / "native"), tmp_path / "back", verify=False)
    assert_same_files(folder, tmp_path / "back")


def test_a_vocabulary_without_unused_rows_grows(copied, tmp_path):
    tables = ("model.embed_tokens.weight", "lm_head.weight")
    folder = copied(
        weights=lambda weights: {name: w[:387].clone() if name in tables else w for name, w in weights.items()},
        vocab_size=387,
    )
    convert(str(folder), tmp_path / "native")
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path / "native")
    assert (model.config.image_token_index, model.config.video_token_index) == (387, 388)
    assert model.lm_head.weight.shape == (389, 64)
    assert not model.lm_head.weight[387:].any()
    convert(str(tmp_path / "native"), tmp_path / "back", verify=False)
    assert_same_files(folder, tmp_path / "back")


def test_rows_without_a_token_are_never_said(llava_golden, tmp_path):
    convert(str(llava_golden / "ckpt-video"), tmp_path / "native", verify=False)
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path / "native")
    assert model.generation_config.suppress_tokens == list(range(387, 448))


def test_towers_of_any_name_without_the_dropped_level(copied, tmp_path):
    """Names that newer versions of transformers write, and a folder of the user's in place of the tower's name."""
    folder = copied(
        weights=lambda weights: {
            name.replace(".vision_tower.vision_model.", ".vision_tower."): w for name, w in weights.items()
        },
        mm_vision_tower="/data/towers/my-siglip",
    )
    convert(str(folder), tmp_path / "native")
    convert(str(tmp_path / "native"), tmp_path / "back", verify=False)
    assert_same_files(folder, tmp_path / "back")


@pytest.mark.contract
def test_a_native_checkpoint_of_others_becomes_an_original_one(
    llava_golden, tmp_path, edit_json, video_frames, video_cases
):
    convert(str(llava_golden / "ckpt-video"), tmp_path / "native", verify=False)
    edit_json(
        tmp_path / "native" / "config.json", llava_config=None, llava_tokenizer_length=None, mm_newline_position=None
    )
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path / "native")
    model.save_pretrained(tmp_path / "theirs")
    LlavaOnevisionProcessor.from_pretrained(tmp_path / "native").save_pretrained(tmp_path / "theirs")
    notes = convert(str(tmp_path / "theirs"), tmp_path / "original")
    assert notes == [
        "config.json: the native one keeps no original settings; written are those of LLaVA-OneVision",
    ]
    tokenizer, original, _, _ = load_pretrained_model(
        str(tmp_path / "original"), None, None, torch_dtype="float32", attn_implementation="sdpa"
    )
    assert len(tokenizer) == 387
    assert original.config.mm_newline_position == "one_token"
    case = video_cases["generate"]["video_one_token"]
    ids = torch.tensor([case["input_ids"]])
    frames = video_frames[slice(*case["images"][0])]
    answer = original.generate(ids, images=[frames], modalities=["video"], max_new_tokens=20, do_sample=False)
    assert answer[0].tolist() == case["ids"]


def test_weights_that_the_native_class_lacks_are_named(copied, tmp_path):
    folder = copied(weights=lambda weights: {**weights, "model.faster_token": torch.ones(64)})
    notes = convert(str(folder), tmp_path / "native", verify=False)
    assert notes[-1] == "weights that the other format does not have (1): model.faster_token"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mm_projector_type": "linear"}, "mm_projector_type='linear', and the native class has mlp2x_gelu only"),
        ({"mm_patch_merge_type": "flat"}, "mm_patch_merge_type='flat' means that there is no newline token"),
        (
            {"without": ("vision_config",), "mm_vision_tower": "openai/clip-vit-large-patch14-336"},
            "is not a SigLIP tower",
        ),
        ({"quantization_config": {"bits": 4}}, "quantised weights have other names: convert the checkpoint"),
        ({"hidden_size": 32}, "contradicts the weights"),
    ],
)
def test_refuses_what_the_native_class_lacks(copied, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        convert(str(copied(**settings)), tmp_path / "native", verify=False)
    assert not (tmp_path / "native").exists()


def test_refuses_a_checkpoint_without_its_tower(copied, tmp_path):
    folder = copied(weights=lambda weights: {name: w for name, w in weights.items() if "vision_tower" not in name})
    with pytest.raises(ValueError, match=r"holds no weights of the vision tower .*: load it with"):
        convert(str(folder), tmp_path / "native", verify=False)


def test_refuses_adapters(copied, tmp_path):
    folder = copied()
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds LoRA weights: merge them into their base model first"):
        convert(str(folder), tmp_path / "native", verify=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"vision_feature_layer": -2},
            "vision_feature_layer must be -1 for a checkpoint in LLaVA-NeXT's format, got -2",
        ),
        ({"vision_config": {"model_type": "clip_vision_model"}}, "model_type of vision_config must be 'siglip_vision"),
        ({"text_config": {"model_type": "llama"}}, "model_type of text_config must be 'qwen2'.*got 'llama'"),
    ],
)
def test_refuses_native_checkpoints_of_another_kind(llava_golden, tmp_path, edit_json, settings, message):
    convert(str(llava_golden / "ckpt-video"), tmp_path / "native", verify=False)
    edit_json(tmp_path / "native" / "config.json", **settings)
    with pytest.raises(ValueError, match=message):
        convert(str(tmp_path / "native"), tmp_path / "back", verify=False)
    assert not (tmp_path / "back").exists()
