"""Steps inside the vision tower: golden numbers of EarlyTom's tower, batches, evidence, places, refusals."""

import json
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, SiglipVisionConfig

from llava.model.tower import ClipTower, SiglipTower
from llava.model.tower_steps import check_steps, through_tower
from llava.model.vision_batches import map_batches
from stgridpool import Compressor, EarlyTom, Plan, Step, build_compressor
from stgridpool.compressor import EncoderLayer
from stgridpool.evidence import AttentionReceived, FrameVectors
from stgridpool.frame_evidence import FrameCosines, FrameSources
from stgridpool.frames.groups import even_groups, pool_over_time
from stgridpool.frames.patterns import every_token


@dataclass(frozen=True)
class Halves(Compressor):
    """Average every two frames."""

    def plan(self, tokens, evidence):
        groups = even_groups(tokens.shape[0], tokens.shape[0] // 2)
        return pool_over_time(groups, every_token(tokens.shape[1:]), tokens.shape)

    def steps(self):
        return (Step(self, EncoderLayer(-2)),)


@dataclass(frozen=True)
class FirstTokens(Halves):
    """Keep one token of each frame."""

    def plan(self, tokens, evidence):
        return Plan.keep(torch.arange(0, len(tokens), tokens.shape[2]), len(tokens))


def in_batches(size):
    return lambda encode, inputs: map_batches(encode, inputs, size)[0]


@pytest.fixture(scope="module")
def siglip():
    torch.manual_seed(0)
    config = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=5, num_attention_heads=4, image_size=16, patch_size=4
    )
    return SiglipTower("google/siglip", config).eval()


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=5, num_attention_heads=4, image_size=16, patch_size=4
    )
    return ClipTower("openai/clip", config, -2, "patch").eval()


@torch.no_grad()
@pytest.mark.parametrize("case", ["t0", "t1", "t2"])
def test_equals_the_original_tower(golden, case):
    """The released encoder with merging after three of 8 layers: features, attention and frames into each layer."""
    folder = golden / "methods" / "earlytom"
    tensors = load_file(folder / "tower.safetensors")
    [variant] = [one for one in json.loads((folder / "tower.json").read_text())["variants"] if one["case"] == case]
    config = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=9, num_attention_heads=4, image_size=16, patch_size=2
    )
    tower = SiglipTower("google/siglip", config).eval()
    weights = {name[2:]: value.float() for name, value in tensors.items() if name.startswith("w.")}
    missing, unexpected = tower.vision_tower.load_state_dict(weights, strict=False)
    assert not missing
    assert all(name.startswith(("post_layernorm", "head", "encoder.layers.8")) for name in unexpected)
    entered = []
    handles = [
        layer.register_forward_pre_hook(lambda module, args: entered.append(len(args[0])))
        for layer in tower.vision_tower.encoder.layers
    ]
    layers = tuple(layer - 8 for layer in variant["prune_layers"])
    method = EarlyTom(
        preset="released",
        inner_retention=1,
        layers=layers,
        threshold=variant["tau"],
        longest=variant["M"],
        momentum=variant["ema"],
    )
    needs = [AttentionReceived(layers[-1])]
    pixels = tensors[f"{case}.pixel_values"].float()
    features, found = through_tower(tower, pixels, method.steps()[:3], needs, in_batches(100))
    for handle in handles:
        handle.remove()
    assert entered == variant["frames_into_layer"]
    torch.testing.assert_close(features, tensors[f"{case}.hidden"], atol=1e-4, rtol=0)
    attention = found[AttentionReceived(layers[-1])].view(len(features), -1)
    torch.testing.assert_close(attention, tensors[f"{case}.attention"], atol=1e-5, rtol=0)
    groups = [[first, end - 1] for first, end in method.frames.groups(found[FrameCosines()])]
    assert groups == tensors[f"{case}.groups"].tolist()
    assert found[FrameSources()].shape == (variant["frames_out"], variant["T"])


@torch.no_grad()
@pytest.mark.parametrize("name", ["siglip", "clip"])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_any_batches_give_the_same(name, size, request):
    """The layers after the step run on the means of two frames, and evidence is that of the layer it is of."""
    tower, pixels = request.getfixturevalue(name), torch.randn(6, 3, 16, 16)
    needs = [AttentionReceived(-3), AttentionReceived(-1), FrameVectors()]
    needs += [FrameVectors("class")] if name == "clip" else []
    features, found = through_tower(tower, pixels, Halves().steps(), [*needs, FrameSources()], in_batches(size))
    begin, layers, finish = tower.parts()
    hidden = begin(pixels)
    for number, layer in enumerate(layers):
        hidden = layer(hidden, attention_mask=None)
        if number == len(layers) - 2:
            hidden = hidden.unflatten(0, (3, 2)).mean(1)
    torch.testing.assert_close(features, finish(hidden))
    assert len(layers) == 4
    _, of_all = tower.with_evidence(pixels, [AttentionReceived(-3)])
    expected = of_all[AttentionReceived(-3)].view(3, 2, -1).mean(1).flatten()
    torch.testing.assert_close(found[AttentionReceived(-3)], expected)
    assert found[AttentionReceived(-1)].shape == (3 * 16,)
    torch.testing.assert_close(found[FrameVectors()], finish(hidden).mean(1))
    if name == "clip":
        torch.testing.assert_close(found[FrameVectors("class")], hidden[:, 0])
    assert found[FrameSources()].tolist() == [[0.5, 0.5, 0, 0, 0, 0], [0, 0, 0.5, 0.5, 0, 0], [0, 0, 0, 0, 0.5, 0.5]]
    assert found[FrameCosines()].shape == (3, 3)
    assert float(found[FrameCosines()].diagonal().mean()) == pytest.approx(1)


@torch.no_grad()
@pytest.mark.parametrize("layers", [(-3, -1), (-4, -2)])
def test_evidence_of_every_layer_follows_later_steps(clip, layers):
    """Eight frames are averaged in pairs twice; evidence is of the frames that its layer sees, then averaged, too."""
    pixels, needs = torch.randn(8, 3, 16, 16), [AttentionReceived(layer) for layer in (-4, -3, -2, -1, 0)]
    needs += [FrameVectors("class"), FrameVectors()]
    steps = [Step(Halves(), EncoderLayer(layer)) for layer in layers]
    features, found = through_tower(clip, pixels, steps, needs, in_batches(3))
    begin, blocks, finish = clip.parts()

    def encode():
        hidden = begin(pixels)
        for number, block in enumerate(blocks):
            hidden = block(hidden, attention_mask=None)
            if number - len(blocks) in layers:
                hidden = hidden.unflatten(0, (-1, 2)).mean(1)
        return finish(hidden)

    expected, of_layers = clip.evidence().collect(encode, needs)
    torch.testing.assert_close(features, expected)
    assert set(of_layers) <= set(found)
    for need, value in of_layers.items():
        at_once = 16 if need.per_token else value.shape[1]
        frames = value.reshape(-1, at_once)  # of the 8, 4 or 2 frames that its layer sees
        torch.testing.assert_close(found[need].reshape(2, at_once), frames.unflatten(0, (2, -1)).mean(1))


def test_what_is_no_frame_is_refused(siglip):
    with pytest.raises(ValueError, match=r"FirstTokens\(\) must leave whole frames of 16 tokens after layer -2 of the"):
        through_tower(siglip, torch.randn(2, 3, 16, 16), FirstTokens().steps(), [], in_batches(4))


def test_layers_that_are_not_there_are_refused(siglip):
    check_steps(siglip, EarlyTom(layers=(-4, -1)).steps())
    with pytest.raises(ValueError, match=r"google/siglip runs 4 layers: choose layers from -4 to -1"):
        check_steps(siglip, EarlyTom(layers=(-5,)).steps())


@torch.no_grad()
def test_a_checkpoint_with_merged_frames(video_checkpoint, video_frames):
    """Tokens are counted as they come, and traced to the frames that were merged."""
    model = video_checkpoint.model
    model.compressor = EarlyTom(tokens_per_frame=4, inner_retention=1, layers=(-2, -1), threshold=-1)
    try:
        video = model.encode_video(video_frames[:8])
    finally:
        model.compressor = None
    assert video.source_shape == (8, 7, 7)
    assert video.shape[0] < 8
    assert (video.num_tokens, video.plan.num_sources) == (32, 8 * 49)
    frames = video.plan.flatten().rows.sources // 49
    assert set(frames.tolist()) == set(range(8))
    torch.testing.assert_close(video.plan.mean(torch.ones(8 * 49, 1)), torch.ones(32, 1))


@torch.no_grad()
def test_a_chain_behind_the_tower_counts_all_frames(video_checkpoint, video_frames):
    """A quarter of 8 frames of 16 tokens, though fewer frames leave the tower."""
    model = video_checkpoint.model
    frames = {"layers": (-2, -1), "threshold": -1}
    model.compressor = build_compressor("earlytom_frames+visionzip", earlytom_frames=frames)
    try:
        video = model.encode_video(video_frames[:8])
    finally:
        model.compressor = None
    assert video.shape[0] < 8
    assert video.num_tokens == 8 * 16 // 4


def test_towers_whose_layers_cannot_be_told_are_refused(siglip, monkeypatch):
    monkeypatch.setattr(SiglipTower, "parts", lambda self: None)
    with pytest.raises(ValueError, match="acts in the vision tower, but google/siglip is not a SigLIP or CLIP tower"):
        check_steps(siglip, Halves().steps())
    with pytest.raises(ValueError, match="the layers of google/siglip cannot be told"):
        through_tower(siglip, torch.randn(2, 3, 16, 16), Halves().steps(), [], in_batches(4))
