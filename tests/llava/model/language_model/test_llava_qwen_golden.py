"""The model against what LLaVA-NeXT computed: embeddings, logits, loss and generated ids."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from llava.mm_utils import KeywordsStoppingCriteria, process_images
from stgridpool import build_compressor

pytestmark = pytest.mark.contract

GOLDEN = Path(__file__).parents[3] / "golden"  # shipped with the tests; names the cases
VIDEO = json.loads((GOLDEN / "llava" / "video_cases.json").read_text())
IMAGE = json.loads((GOLDEN / "llava" / "image_cases.json").read_text())
E2E = json.loads((GOLDEN / "stgridpool" / "e2e_cases.json").read_text())


def close(actual, expected, atol):
    torch.testing.assert_close(actual.float(), expected.float(), atol=atol, rtol=0)


def relative_error(actual, expected):
    return ((actual.float() - expected.float()).norm() / expected.float().norm()).item()


def video_images(case, frames):
    if case["images"] is None:
        return None
    return [
        frames[entry["single_3d_frame"]] if isinstance(entry, dict) else frames[entry[0] : entry[1]]
        for entry in case["images"]
    ]


@pytest.fixture(scope="module")
def ov_inputs(llava_golden, ov_checkpoint):
    pictures = {
        name: Image.fromarray(value.numpy())
        for name, value in load_file(llava_golden / "image_inputs.safetensors").items()
    }
    frames = load_file(llava_golden / "ov_video_inputs.safetensors")["frames"].numpy()
    return pictures, ov_checkpoint.processor.preprocess(np.asarray(frames), return_tensors="pt")["pixel_values"]


def image_inputs(case, checkpoint, ov_inputs):
    pictures, frames = ov_inputs
    described = case["images"]
    if "frames" in described:
        first, last = described["frames"]
        return [frames[first:last]], None
    names = described.get("process_images") or described["process_images_list"]
    chosen = [pictures[name] for name in names]
    images = process_images(chosen, checkpoint.processor, checkpoint.model.config)
    return (list(images) if "process_images_list" in described else images), [image.size for image in chosen]


def prepare(model, tensors, name, *, images, modalities, image_sizes=None):
    input_ids, mask = tensors[f"{name}.input_ids"], tensors[f"{name}.attention_mask_in"]
    positions = torch.arange(input_ids.shape[1]).expand_as(input_ids)
    with torch.no_grad():
        return model.prepare_inputs_labels_for_multimodal(
            input_ids, positions, mask, None, input_ids, images, modalities, image_sizes
        )


def check_prepared(prepared, tensors, name, atol):
    ids, positions, mask, cache, embeds, labels = prepared
    assert ids is None
    assert cache is None
    close(embeds, tensors[f"{name}.inputs_embeds"], atol)
    assert mask.dtype == tensors[f"{name}.attention_mask_in"].dtype
    assert torch.equal(mask.long(), tensors[f"{name}.attention_mask"].long())
    assert torch.equal(labels, tensors[f"{name}.labels"])
    assert torch.equal(positions, tensors[f"{name}.position_ids"])


def test_features(llava_golden, video_checkpoint, video_frames):
    expected, model = load_file(llava_golden / "video_features.safetensors"), video_checkpoint.model
    with torch.no_grad():
        close(model.get_vision_tower()(video_frames[:4]), expected["vision_features"], 1e-4)
        projected = model.encode_images(video_frames[:4])
    close(projected, expected["projected"], 1e-4)


@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("mode", ["bilinear", "average", "max"])
def test_own_pooling(llava_golden, video_checkpoint, settings, mode, stride):
    expected = load_file(llava_golden / "video_features.safetensors")
    with settings(video_checkpoint.model.config, mm_spatial_pool_mode=mode):
        pooled = video_checkpoint.model.get_2dPool(expected["projected"], stride)
    close(pooled, expected[f"pooled_{mode}_stride{stride}"], 1e-4)


@pytest.mark.parametrize("name", VIDEO["cases"])
def test_video_splice(llava_golden, video_checkpoint, video_frames, settings, name, caplog):
    tensors, case = load_file(llava_golden / "video_splice.safetensors"), VIDEO["cases"][name]
    model = video_checkpoint.model
    with settings(model.config, **case["config_overrides"]):
        prepared = prepare(model, tensors, name, images=video_images(case, video_frames), modalities=case["modalities"])
    assert list(prepared[4].shape) == case["embeds_shape"]
    check_prepared(prepared, tensors, name, 1e-4)
    assert ("were cut" in caplog.text) == name.startswith("truncated")


@pytest.mark.parametrize("name", IMAGE["cases"])
def test_image_splice(llava_golden, ov_checkpoint, ov_inputs, settings, name):
    tensors, case = load_file(llava_golden / "image_splice.safetensors"), IMAGE["cases"][name]
    model = ov_checkpoint.model
    with settings(model.config, **case["config_overrides"]):
        images, sizes = image_inputs(case, ov_checkpoint, ov_inputs)
        shape = [list(image.shape) for image in images] if isinstance(images, list) else list(images.shape)
        prepared = prepare(model, tensors, name, images=images, modalities=case["modalities"], image_sizes=sizes)
    assert shape == case["pixel_values"]
    assert isinstance(images, list) == case["pixel_values_is_list"]
    check_prepared(prepared, tensors, name, 1e-3)


def test_absent_inputs_stay_absent(llava_golden, video_checkpoint, video_frames):
    tensors = load_file(llava_golden / "video_splice.safetensors")
    ids = tensors["T1_grid.input_ids"]
    with torch.no_grad():
        prepared = video_checkpoint.model.prepare_inputs_labels_for_multimodal(
            ids, None, None, None, None, [video_frames[5:6]], ["video"]
        )
    assert [value is None for value in prepared] == [True, True, True, True, False, True]
    close(prepared[4], tensors["T1_grid.inputs_embeds"], 1e-4)


def test_logits_and_loss(llava_golden, video_checkpoint, video_frames):
    tensors, model = load_file(llava_golden / "video_logits.safetensors"), video_checkpoint.model
    with torch.no_grad():
        outputs = model(
            input_ids=tensors["loglik.input_ids"],
            labels=tensors["loglik.labels"],
            images=[video_frames[:4]],
            modalities=["video"],
        )
        text = model(input_ids=tensors["text.input_ids"])
        last = model(
            input_ids=tensors["loglik.input_ids"], images=[video_frames[:4]], modalities="video", logits_to_keep=3
        )
    close(outputs["logits"], tensors["loglik.logits"], 1e-3)
    close(outputs["loss"], tensors["loglik.loss"][0], 1e-4)
    close(text.logits, tensors["text.logits"], 1e-3)
    close(last.logits, tensors["loglik.logits"][:, -3:], 1e-3)


def test_logits_of_a_padded_batch(llava_golden, video_checkpoint):
    spliced = load_file(llava_golden / "video_splice.safetensors")
    name = "batch2_left_pad"
    with torch.no_grad():
        outputs = video_checkpoint.model(
            inputs_embeds=spliced[f"{name}.inputs_embeds"],
            attention_mask=spliced[f"{name}.attention_mask"],
            position_ids=spliced[f"{name}.position_ids"],
        )
    expected = load_file(llava_golden / "video_logits.safetensors")[f"{name}.last_logits"]
    close(outputs.logits[:, -1], expected, 1e-3)


@pytest.mark.parametrize("name", ["anyres_max_9_wide", "video_one_token"])
def test_image_logits(llava_golden, ov_checkpoint, ov_inputs, name):
    case = IMAGE["generate"][name]
    images, sizes = image_inputs(case, ov_checkpoint, ov_inputs)
    modality = "video" if "frames" in case["images"] else "image"
    with torch.no_grad():
        outputs = ov_checkpoint.model(
            input_ids=torch.tensor([case["input_ids"]]), images=images, image_sizes=sizes, modalities=[modality]
        )
    expected = load_file(llava_golden / "image_logits.safetensors")[f"{name}.logits_last8"]
    close(outputs.logits[:, -8:], expected, 1e-3)


@pytest.mark.parametrize("name", VIDEO["generate"])
def test_video_generation(video_checkpoint, video_frames, settings, name):
    case, model = VIDEO["generate"][name], video_checkpoint.model
    ids = torch.tensor([case["input_ids"]])
    extra = {} if name.endswith("no_attention_mask") else {"attention_mask": torch.ones_like(ids)}
    if "keyword" in case:
        extra["stopping_criteria"] = [KeywordsStoppingCriteria([case["keyword"]], video_checkpoint.tokenizer, ids)]
    images = video_images(case, video_frames)
    with settings(model.config, **case["config_overrides"]):
        output = model.generate(
            ids,
            images=images,
            modalities=["video"] * len(images or []),
            do_sample=False,
            max_new_tokens=case["max_new_tokens"],
            **extra,
        )
    assert output[0].tolist() == case["ids"]


@pytest.mark.parametrize("name", IMAGE["generate"])
def test_image_generation_with_the_checkpoints_penalty(ov_checkpoint, ov_inputs, settings, name):
    case, model = IMAGE["generate"][name], ov_checkpoint.model
    assert model.generation_config.repetition_penalty == 1.05
    with settings(model.config, **case["config_overrides"]):
        images, sizes = image_inputs(case, ov_checkpoint, ov_inputs)
        output = model.generate(
            torch.tensor([case["input_ids"]]),
            images=images,
            image_sizes=sizes,
            modalities=["video" if "frames" in case["images"] else "image"] * len(images),
            do_sample=False,
            max_new_tokens=case["max_new_tokens"],
        )
    assert output[0].tolist() == case["ids"]


def test_bfloat16(llava_golden, bf16_checkpoint, video_frames):
    tensors, model = load_file(llava_golden / "video_bf16.safetensors"), bf16_checkpoint.model
    pixels = video_frames[:4].bfloat16()
    with torch.no_grad():
        projected = model.encode_images(pixels)
        outputs = model(input_ids=tensors["input_ids"], images=[pixels], modalities=["video"], logits_to_keep=4)
        embeds = model.prepare_inputs_labels_for_multimodal(
            tensors["input_ids"], None, None, None, None, [pixels], ["video"]
        )[4]
    assert embeds.dtype == outputs.logits.dtype == torch.bfloat16
    assert relative_error(projected, tensors["projected"]) < 0.03
    assert relative_error(embeds, tensors["inputs_embeds"]) < 0.03
    assert relative_error(outputs.logits, tensors["logits_last4"]) < 0.03


# The settings of each released text, as our compressor: `PREPARE_CONFIG` of path A, `pool_config` of path B.
RELEASED = {"strides": (2, 4, 8), "grid_size": 4, "norm_order": 2}
COMPRESSORS = {
    "A_nsp_only": build_compressor("nsp", norm_order=2),
    "A_default_p1_no_ptg": build_compressor("nsp", norm_order=1),
    "A_ptg_f124_temp4": build_compressor(
        "st_gridpool", preset=None, strides=(1, 2, 4), grid_size=4, scale=4, norm_order=2
    ),
}


def e2e_frames(name, case, frames):
    """Path B takes `num_frames` of longer videos, evenly."""
    given = frames[: case["T"]]
    wanted = int(name.rsplit("num", 1)[1]) if name.startswith("B_") else case["T"]
    if wanted >= case["T"]:
        return given
    table = json.loads((GOLDEN / "stgridpool" / "index_tables.json").read_text())["uniform_sample"]
    return given[table[str(wanted)][str(case["T"])]]


@pytest.mark.parametrize("name", [*E2E["path_A_in_get2dpool"], *E2E["path_B_prepare"]])
def test_st_gridpool_end_to_end(video_checkpoint, video_frames, settings, name):
    case = (E2E["path_A_in_get2dpool"] | E2E["path_B_prepare"])[name]
    tensors = load_file(GOLDEN / "stgridpool" / "e2e.safetensors")
    model, ids = video_checkpoint.model, tensors["input_ids"]
    images = [e2e_frames(name, case, video_frames)]
    model.compressor = COMPRESSORS.get(name) or build_compressor("st_gridpool", preset=None, **RELEASED)
    try:
        with settings(model.config, mm_newline_position=case.get("mm_newline_position", "no_token")), torch.no_grad():
            embeds = model.prepare_inputs_labels_for_multimodal(ids, None, None, None, None, images, ["video"])[4]
            output = model.generate(
                ids, images=images, modalities="video", do_sample=False, max_new_tokens=case.get("max_new_tokens", 1)
            )
    finally:
        model.compressor = None
    assert list(embeds.shape) == case["embeds_shape"]
    if f"{name}.inputs_embeds" in tensors:
        close(embeds, tensors[f"{name}.inputs_embeds"], 1e-4)
    else:
        close(embeds[:, ::7], tensors[f"{name}.inputs_embeds_every7"], 1e-4)
    if "generated" in case:
        assert output[0].tolist() == case["generated"]
