"""In plain Python, too, features and logits that are not finite give an error and no answer."""

import copy
import math

import pytest
import torch

from stgridpool.finite import NonFiniteError, first_failure, flags_of

IDS = torch.tensor([[385, -200, 13]])
GREEDY = {"do_sample": False, "max_new_tokens": 3}


@pytest.fixture
def spoil(video_checkpoint):
    """Function that gives the model with NaN in one weight."""

    def spoil(name):
        model = copy.deepcopy(video_checkpoint.model)
        with torch.no_grad():
            model.get_parameter(name).view(-1)[5] = math.nan
        return model

    return spoil


@pytest.mark.parametrize(
    ("weight", "stage"),
    [
        ("model.vision_tower.vision_tower.embeddings.patch_embedding.bias", "vision tower"),
        ("model.mm_projector.2.bias", "projector"),
        ("model.image_newline", "compressor"),
        ("model.layers.0.self_attn.v_proj.weight", "language model"),
    ],
)
@pytest.mark.parametrize("is_encoded", [True, False])
def test_the_stage_of_a_video_is_named(spoil, video_frames, weight, stage, is_encoded):
    model = spoil(weight)
    with torch.inference_mode():
        video = model.encode_video(video_frames[:3]) if is_encoded else video_frames[:3]
    with pytest.raises(NonFiniteError, match=f"in the {stage} with torch_dtype=float32: the weights are damaged"):
        model.generate(IDS, images=[video], modalities=["video"], **GREEDY)
    assert not model._forward_hooks


def test_an_encoded_video_says_whether_it_is_finite(spoil, video_checkpoint, video_frames):
    for model, expected in ((video_checkpoint.model, [True] * 3), (spoil("model.mm_projector.2.bias"), [True, False])):
        with torch.inference_mode():
            checks = model.encode_video(video_frames[:3]).checks
        assert [check.stage for check in checks] == ["vision tower", "projector", "compressor"]
        assert [bool(check.is_finite) for check in checks][: len(expected)] == expected
    assert first_failure(checks, flags_of(checks, torch.device("cpu"))).stage == "projector"


def test_pictures_and_text(spoil, video_frames):
    model = spoil("model.mm_projector.2.bias")
    with pytest.raises(NonFiniteError, match="in the language model"):
        model.generate(IDS, images=[video_frames[0]], **GREEDY)
    text = torch.tensor([[385, 13]])
    assert model.generate(text, **GREEDY).shape[0] == 1
    with pytest.raises(NonFiniteError, match="in the language model"):
        spoil("lm_head.weight").generate(text, **GREEDY)
