"""Batches, sampling, errors, and models that are spread over devices."""

import json
import math

import pytest
import torch
from accelerate import infer_auto_device_map
from transformers import GenerationConfig

from llava.model.builder import load_pretrained_model
from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM
from stgridpool.decoder.kv_cache import CACHE_ARGUMENT, find_cache

pytestmark = pytest.mark.contract


def placeholders(*rows):
    return [torch.tensor(row) for row in rows]


def padded(rows, side):
    longest = max(len(row) for row in rows)
    ids, mask = torch.full((len(rows), longest), 384), torch.zeros(len(rows), longest, dtype=torch.long)
    for index, row in enumerate(rows):
        span = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        ids[index, span], mask[index, span] = row, 1
    return ids, mask


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_answers_as_its_rows_do(video_checkpoint, video_frames, side):
    model = video_checkpoint.model
    rows = placeholders([385, 84, 382, 198, -200, 198, 30, 386], [385, -200, 13])
    videos = [video_frames[:3], video_frames[8:10]]
    options = {"modalities": "video", "do_sample": False, "max_new_tokens": 8}
    singles = [
        model.generate(row[None], images=[video], **options)[0].tolist()
        for row, video in zip(rows, videos, strict=True)
    ]
    ids, mask = padded(rows, side)
    together = model.generate(ids, images=videos, attention_mask=mask, **options)
    assert together.tolist() == singles


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_text_batch_answers_as_its_rows_do(video_checkpoint, side):
    model = video_checkpoint.model
    rows = placeholders([385, 84, 382, 198, 30, 386], [7, 13])
    options = {"do_sample": False, "max_new_tokens": 8}
    singles = [model.generate(row[None], **options)[0].tolist() for row in rows]
    ids, mask = padded(rows, side)
    assert model.generate(ids, attention_mask=mask.bool(), **options).tolist() == singles


def test_sampling_follows_the_seed_and_the_limits(video_checkpoint, video_frames):
    model = video_checkpoint.model
    ids = torch.tensor([[385, -200, 13]])
    options = {"images": [video_frames[:2]], "modalities": "video", "do_sample": True, "max_new_tokens": 6}

    def sample(seed, **more):
        torch.manual_seed(seed)
        return model.generate(ids, **options, **more)[0].tolist()

    assert sample(1, temperature=2.0) == sample(1, temperature=2.0)
    assert len({tuple(sample(seed, temperature=2.0)) for seed in range(4)}) > 1
    greedy = model.generate(ids, **{**options, "do_sample": False})[0].tolist()
    assert sample(1, top_k=1) == greedy
    beams = model.generate(ids, **{**options, "do_sample": False}, num_beams=2)
    assert beams.shape == (1, 6)


def test_the_loss_counts_labels_only(video_checkpoint, video_frames):
    model = video_checkpoint.model
    ids = torch.tensor([[385, -200, 13, 30, 31]])
    labels = torch.tensor([[-100, -100, -100, 30, 31]])
    with torch.no_grad():
        outputs = model(input_ids=ids, labels=labels, images=[video_frames[:2]], modalities="video")
    log_probabilities = outputs.logits[0].log_softmax(dim=-1)
    expected = -(log_probabilities[-3, 30] + log_probabilities[-2, 31]) / 2
    torch.testing.assert_close(outputs["loss"], expected)


def test_a_cache_can_be_continued(video_checkpoint, video_frames):
    model, ids = video_checkpoint.model, torch.tensor([[385, -200, 13, 30]])
    images = {"images": [video_frames[:2]], "modalities": "video"}
    with torch.no_grad():
        whole = model(input_ids=ids, **images).logits
        prefix, again = (model(input_ids=ids[:, :3], use_cache=True, **images) for _ in range(2))
        last = model(input_ids=ids[:, 3:], past_key_values=find_cache((), prefix)).logits
        by_new_name = model(input_ids=ids[:, 3:], **{CACHE_ARGUMENT: find_cache((), again)}).logits
        as_tuple = model(input_ids=ids, return_dict=False, **images)
    torch.testing.assert_close(last[:, -1], whole[:, -1], atol=1e-4, rtol=0)
    torch.testing.assert_close(by_new_name, last)
    torch.testing.assert_close(as_tuple[0], whole)


def test_errors(video_checkpoint, video_frames):
    model, ids = video_checkpoint.model, torch.tensor([[385, -200, 13]])
    with pytest.raises(ValueError, match=r"image placeholders .* no images were given"):
        model(input_ids=ids)
    with pytest.raises(ValueError, match=r"image placeholders .* no images were given"):
        model.generate(ids, images=[])
    with pytest.raises(NotImplementedError, match="inputs_embeds is not supported"):
        model.generate(ids, inputs_embeds=torch.zeros(1, 3, 64))
    with pytest.raises(ValueError, match="needs the prompt's ids"):
        model.generate(images=[video_frames])
    with pytest.raises(NotImplementedError, match="dpo_forward"):
        model(input_ids=ids, images=[video_frames[:1]], dpo_forward=True)


def test_a_long_video_loses_the_question_with_a_warning(video_checkpoint, video_frames, settings, caplog):
    model, ids = video_checkpoint.model, torch.tensor([[385, -200, 13]])
    with settings(model.config, tokenizer_model_max_length=50):
        answer = model.generate(ids, images=[video_frames[:4]], modalities="video", do_sample=False, max_new_tokens=2)
    assert answer.shape == (1, 2)
    assert "32 of 82 tokens were cut from the end" in caplog.text
    assert "The question is at the end and may be lost" in caplog.text


def test_sampling_settings_of_the_checkpoint_stay(ov_checkpoint):
    settings = ov_checkpoint.model.generation_config
    assert isinstance(settings, GenerationConfig)
    assert (settings.do_sample, settings.temperature, settings.top_k, settings.top_p) == (True, 0.7, 20, 0.8)


# Device maps as accelerate makes them, with parts of the model on disk in place of other devices.
PARTS = ["model.embed_tokens", "lm_head", "model.vision_tower", "model.mm_projector", "model.image_newline"]
PARTS += ["model.layers.0", "model.layers.1", "model.norm", "model.rotary_emb"]


@pytest.mark.filterwarnings("ignore:The following device_map keys do not match")
@pytest.mark.parametrize("offloaded", [(), ("model.layers.1",), ("model.vision_tower", "model.mm_projector")])
def test_spread_models_answer_the_same(llava_golden, video_cases, video_frames, tmp_path, offloaded):
    case = video_cases["generate"]["video_grid"]
    device_map = {part: "disk" if part in offloaded else "cpu" for part in PARTS}
    model = load_pretrained_model(
        str(llava_golden / "ckpt-video"),
        None,
        "llava_qwen",
        device_map=device_map,
        offload_folder=str(tmp_path),
        torch_dtype="float32",
        attn_implementation="sdpa",
    )[1]
    away = {name for name, parameter in model.named_parameters() if parameter.is_meta}
    assert away == {name for name, _ in model.named_parameters() if name.startswith(offloaded or ("-",))}
    ids = torch.tensor([case["input_ids"]])
    answer = model.generate(ids, images=[video_frames[:4]], modalities="video", do_sample=False, max_new_tokens=20)
    assert answer[0].tolist() == case["ids"]


@pytest.mark.filterwarnings("ignore:The following device_map keys do not match")
def test_the_vocabulary_cannot_be_cut_where_it_is_offloaded(llava_golden, tmp_path):
    device_map = {part: "disk" if part == "lm_head" else "cpu" for part in PARTS}
    with pytest.raises(ValueError, match="embed_tokens and lm_head cannot be offloaded"):
        load_pretrained_model(
            str(llava_golden / "ckpt-video"), None, "x", device_map=device_map, offload_folder=str(tmp_path)
        )


def test_a_72b_is_spread_by_whole_layers_and_a_whole_tower(llava_golden):
    settings = json.loads((llava_golden / "ckpt-video" / "config.json").read_text()) | {
        "hidden_size": 8192,
        "intermediate_size": 29568,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 152064,
        "mm_vision_tower": "google/siglip-so400m-patch14-384",
        "mm_hidden_size": 1152,
        "vision_config": None,
    }
    with torch.device("meta"):
        model = LlavaQwenForCausalLM(LlavaQwenConfig.from_dict(settings))
    assert math.isclose(sum(parameter.numel() for parameter in model.parameters()), 73.2e9, rel_tol=0.01)
    memory = {0: "44GiB", 1: "44GiB", 2: "44GiB", 3: "44GiB", "cpu": "1GiB"}
    device_map = infer_auto_device_map(
        model, max_memory=memory, dtype=torch.bfloat16, no_split_module_classes=model._no_split_modules
    )
    assert set(device_map.values()) == {0, 1, 2, 3}
    layers = {f"model.layers.{index}" for index in range(80)}
    others = {"model.image_newline", "model.embed_tokens", "model.norm", "model.rotary_emb", "model.vision_tower"}
    assert set(device_map) == layers | others | {"model.mm_projector", "lm_head"}
    assert device_map["model.image_newline"] == device_map["model.embed_tokens"]
