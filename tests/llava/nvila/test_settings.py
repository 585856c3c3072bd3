"""Reading an NVILA checkpoint: its layout, what is refused, and what has no effect."""

import json
import os
import shutil
import sys

import pytest
import torch
from transformers import AutoConfig

from llava.model.checkpoint import read_checkpoint
from llava.nvila.encoders import MediaEncoder
from llava.nvila.model import NvilaForCausalLM
from stgridpool.evidence import AttentionReceived


def test_three_folders_are_one_checkpoint(checkpoints):
    """Trap 1: transformers itself cannot read the root, and the tokenizer lies in `llm`."""
    for name, checkpoint in checkpoints.items():
        assert type(checkpoint.model) is NvilaForCausalLM
        assert checkpoint.model.config.architectures == ["NvilaForCausalLM"]
        assert checkpoint.context == 4096, name


def test_the_tree_may_lie_in_a_folder_called_model(copied, load_nvila, tmp_path):
    folder = tmp_path / "outer"
    folder.mkdir()
    copied("lite").rename(folder / "model")
    assert type(load_nvila(folder).model) is NvilaForCausalLM


@pytest.mark.parametrize(("name", "inside"), [("base", "."), ("lite", "model")])
def test_a_snapshot_in_the_cache_of_the_hub(checkpoints, nvila_golden, load_nvila, tmp_path, name, inside):
    """Its files are relative links to files that are named after their content, without an ending."""
    source, snapshot = nvila_golden / f"ckpt-{name}", tmp_path / "models--x--y" / "snapshots" / "1a2b"
    blobs = tmp_path / "models--x--y" / "blobs"
    blobs.mkdir(parents=True)
    for number, file in enumerate(file for file in source.rglob("*") if file.is_file()):
        shutil.copyfile(file, blobs / str(number))
        link = snapshot / inside / file.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blobs / str(number), link.parent))
    model, expected = load_nvila(snapshot).model, checkpoints[name].model.state_dict()
    assert model.config._commit_hash == "1a2b"
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_remote_code_is_never_run(copied, load_nvila):
    """The hub's form names Python files; a file that would end the process has no effect."""
    folder = copied("lite")
    assert json.loads((folder / "config.json").read_text())["auto_map"]
    for name in ("modeling_vila.py", "configuration_vila.py", "auto_processor.py"):
        (folder / name).write_text("raise SystemExit(3)\n")
        shutil.copy(folder / name, folder / "llm" / name)
    before = set(sys.modules)
    load_nvila(folder)
    assert not [name for name in set(sys.modules) - before if "vila" in name and not name.startswith("llava")]
    with pytest.raises((ValueError, KeyError, OSError)):
        AutoConfig.from_pretrained(folder, trust_remote_code=False)


def test_the_last_layer_of_the_tower_is_let_go(checkpoints, nvila_golden):
    """Trap 2: all layers are on disk, and the feature is the output of the last but one, with every patch."""
    layers = json.loads((nvila_golden / "ckpt-video" / "vision_tower" / "config.json").read_text())["num_hidden_layers"]
    tower = checkpoints["video"].model.get_vision_tower()
    assert len(tower.vision_tower.encoder.layers) == layers - 1
    assert tower(torch.zeros(1, 3, 70, 70)).shape == (1, 25, 32)


def test_a_newline_is_the_embedding_of_its_text(checkpoints):
    """Trap 4: there is no parameter for it."""
    model, tokenizer = checkpoints["video"].model, checkpoints["video"].tokenizer
    assert model.model.image_newline is None
    assert model.config.video_end_ids == tokenizer("\n").input_ids == [198]


def test_the_grid_is_that_of_the_projector(checkpoints):
    """Trap 6: 5 and 4 patches along a side become 3 and 2, padded."""
    sides = {
        name: (one.model.get_vision_tower().num_patches_per_side, one.model.projected_side)
        for name, one in checkpoints.items()
    }
    assert sides == {"video": (5, 3), "base": (4, 2), "lite": (4, 2)}


def test_evidence_follows_to_the_grid_of_the_projector(checkpoints):
    """Values of 5 x 5 patches are averaged over squares of 2 x 2, smaller at the border."""
    need = AttentionReceived()
    values = torch.arange(25.0).view(5, 5)
    [carried] = checkpoints["video"].model.evidence_on_map({need: values.flatten().repeat(2)}, 2).values()
    first = [values[row : row + 2, column : column + 2].mean() for row in (0, 2, 4) for column in (0, 2, 4)]
    torch.testing.assert_close(carried, torch.stack(first).repeat(2))


def test_frames_are_repeated_for_every_scale(checkpoints):
    """Trap 7: the projector of dynamic S2 reads three features of a patch."""
    model = checkpoints["base"].model
    features = torch.rand(2, 16, 24)
    assert torch.equal(model.for_projector(features), torch.cat([features] * 3, dim=2))
    assert torch.equal(checkpoints["video"].model.for_projector(features), features)


def test_generation_settings_of_the_language_model_have_no_effect(checkpoints, nvila_golden):
    """Trap 8: the file asks for sampling with a penalty; what generation merges is greedy without one."""
    asked = json.loads((nvila_golden / "ckpt-video" / "llm" / "generation_config.json").read_text())
    assert (asked["do_sample"], asked["repetition_penalty"]) == (True, 1.05)
    model = checkpoints["video"].model
    merged, _ = model._prepare_generation_config(None, max_new_tokens=3)
    assert not merged.do_sample
    assert (merged.repetition_penalty or 1.0, merged.temperature or 1.0, merged.top_p or 1.0) == (1.0, 1.0, 1.0)
    assert merged.eos_token_id == [386]


def test_media_tokens_need_no_embeddings(checkpoints, nvila_golden):
    """Trap 11: the tokenizer gets three tokens, and the embeddings keep their rows."""
    base = checkpoints["base"]
    assert base.tokenizer.convert_tokens_to_ids(["<vila/sentinel>", "<image>", "<vila/video>"]) == [389, 390, 391]
    assert base.model.get_input_embeddings().weight.shape[0] == base.model.lm_head.weight.shape[0] == 389
    assert base.model(input_ids=torch.tensor([[1, 2]])).logits.shape == (1, 2, 389)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(nvila_golden, load_nvila, dtype):
    """Trap 12: weights on disk may be of another dtype; the model is what was asked for."""
    model = load_nvila(nvila_golden / "ckpt-base", torch_dtype=dtype).model
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}
    video = model.encode_video(torch.zeros(2, 3, 56, 56))
    assert video.embeds.dtype == getattr(torch, dtype)
    assert torch.isfinite(video.embeds).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"root": {"s2": True}}, "s2=True is not supported"),
        ({"root": {"ps3": True}}, "ps3=True is not supported"),
        ({"root": {"mm_vision_select_feature": "patch"}}, "mm_vision_select_feature must be 'cls_patch'.*got 'patch'"),
        ({"root": {"mm_vision_select_layer": -1}}, "mm_vision_select_layer must be -2, as in NVILA, got -1"),
        ({"root": {"image_aspect_ratio": "anyres"}}, "image_aspect_ratio must be one of resize, pad, .*, got 'anyres'"),
        ({"root": {"image_aspect_ratio": "dynamic_s2"}}, "image_aspect_ratio=dynamic_s2 needs dynamic_s2=true"),
        ({"root": {"dynamic_s2": True}}, "s2_scales must be ascending multiples of the tower's image_size=70"),
        ({"root": {"video_max_tiles": 4}}, "video_max_tiles must be 1 or left out, got 4"),
        ({"root": {"num_video_frames": 0}}, "num_video_frames must be an integer of at least 1, got 0"),
        ({"root": {"chat_template": "mistral"}}, "chat_template must be null or one of qwen2, got 'mistral'"),
        ({"root": {"min_tiles": 13}}, "must be integers, 1 <= min_tiles <= max_tiles"),
        ({"llm": {"model_type": "llama"}}, "llm must be a Qwen2 model, as in NVILA, got 'llama'"),
        ({"vision_tower": {"model_type": "radio"}}, "vision_tower must be a SigLIP model, got 'radio'"),
        (
            {"mm_projector": {"mm_projector_type": "mlp_downsample_3x3_s2"}},
            "mm_projector_type must be .*, got 'mlp_down",
        ),
        ({"mm_projector": {"mm_projector_type": "mlp_downsample_3x3_fix"}}, "contradicts the weights"),
        ({"preprocessing": {"resample": 2}}, "preprocessor_config.json: resample must be 3, .* got 2"),
        ({"llm": {"num_hidden_layers": 3}}, "num_hidden_layers=3 contradicts the weights"),
        ({"root": {"video_encoder": {"_target_": "x.OtherEncoder"}}}, "video_encoder must be BasicVideoEncoder or TSP"),
    ],
)
def test_what_is_not_supported_is_refused(copied, changes, message):
    with pytest.raises(ValueError, match=message):
        read_checkpoint(copied(**changes))


def test_a_missing_part_or_weight_is_named(copied):
    folder = copied("base")
    (folder / "llm" / "model-00003-of-00005.safetensors").unlink()
    with pytest.raises(ValueError, match=r"lacks model-00003-of-00005\.safetensors, which"):
        read_checkpoint(folder)
    shutil.rmtree(folder / "mm_projector")
    with pytest.raises(ValueError, match="lacks the folder mm_projector: it needs llm, vision_tower, mm_projector"):
        read_checkpoint(folder)


def test_overwritten_settings(nvila_golden):
    checkpoint = read_checkpoint(nvila_golden / "ckpt-video", overwrites={"mm_newline_position": "no_token"})
    assert checkpoint.outline().own_counts(8) == (18, 0)
    with pytest.raises(ValueError, match="video_encoding must be one of video, frames, got 'x'"):
        read_checkpoint(nvila_golden / "ckpt-video", overwrites={"video_encoding": "x"})
    with pytest.raises(ValueError, match="NVILA checkpoints take no customized_config"):
        read_checkpoint(nvila_golden / "ckpt-video", customized="x")


def test_settings_of_the_root_are_overwritten_and_checked(nvila_golden):
    folder, encoder = nvila_golden / "ckpt-video", {"_target_": "x.TSPVideoEncoder", "pool_sizes": [[2, 1, 1]]}
    checkpoint = read_checkpoint(folder, overwrites={"video_encoder": encoder, "image_aspect_ratio": "dynamic"})
    assert checkpoint.config.pool_sizes == [[2, 1, 1]]
    assert checkpoint.config.image_aspect_ratio == "dynamic"
    assert checkpoint.outline().own_counts(8) == (36, 4)
    with pytest.raises(ValueError, match=r"image_aspect_ratio must be one of resize, .*, got 'anyres'"):
        read_checkpoint(folder, overwrites={"image_aspect_ratio": "anyres"})
    with pytest.raises(ValueError, match="chat_template must be null or one of qwen2, got 'vicuna'"):
        read_checkpoint(folder, overwrites={"chat_template": "vicuna"})


@pytest.mark.parametrize("name", ["pool_sizes", "video_end_ids", "mm_spatial_pool_mode"])
def test_overwritten_settings_without_an_effect_are_refused(nvila_golden, name):
    with pytest.raises(ValueError, match=f"overwrite_config: {name} has no effect on NVILA, whose image_encoder and"):
        read_checkpoint(nvila_golden / "ckpt-video", overwrites={name: [[8, 1, 1]]})


def test_a_built_in_chat_template(copied, load_nvila):
    tokenizer = load_nvila(copied("base", root={"chat_template": "qwen2"})).tokenizer
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text.startswith(
        "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "video_encoder is not valid JSON"),
        ([1], "video_encoder must be an object, got"),
        ({"pool_sizes": [[8, 1, 1]]}, "has unknown settings .'pool_sizes'.; BasicVideoEncoder has"),
        ({"_target_": "TSPVideoEncoder"}, "pool_sizes must be a list of .frames, rows, columns., .* got None"),
        ({"_target_": "TSPVideoEncoder", "pool_sizes": [[0, 1, 1]]}, "each at least 1, got"),
        ({"end_tokens": 5}, "end_tokens of video_encoder must be a text or null, got 5"),
    ],
)
def test_encoders_that_cannot_be(value, message):
    with pytest.raises(ValueError, match=message):
        MediaEncoder.of("video_encoder", value, "config.json")


def test_an_encoder_may_be_json_text():
    text = json.dumps({"_target_": "a.TSPVideoEncoder", "pool_sizes": [[8, 1, 1]], "end_tokens": None})
    assert MediaEncoder.of("video_encoder", text, "config.json") == MediaEncoder(end="", pool_sizes=((8, 1, 1),))
