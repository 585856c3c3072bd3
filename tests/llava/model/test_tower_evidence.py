"""Evidence of all kinds of towers against eager attention and the layers' own weights."""

import copy
import json
from collections import Counter

import accelerate
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, SiglipVisionConfig

from llava.model.capture import captured
from llava.model.tower import ClipTower, SiglipTower
from stgridpool import PruMerge, PruMergePlus
from stgridpool.algorithms.patch_attention import attention_received
from stgridpool.evidence import (
    AttentionReceived,
    ClassAttention,
    FrameVectors,
    JointPatches,
    PoolHeadAttention,
    TowerKeys,
)

GEOMETRY = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "image_size": 28,
    "patch_size": 7,
}
TEXT = {"context_length": 8, "vocab_size": 32, "width": 8, "heads": 2, "layers": 1}
VIT = {"image_size": 28, "layers": 4, "width": 24, "head_width": 8, "patch_size": 7}
NORMED = {**VIT, "block_type": "custom", "qk_norm": True}
TIMM = {"timm_model_pretrained": False, "timm_pool": "", "timm_proj": "linear"}
PIXELS = torch.rand(3, 3, 28, 28, generator=torch.Generator().manual_seed(1))
LARGE = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(1))
LAYERS = [-1, -2]


@pytest.fixture(scope="module", autouse=True)
def _open_clip(without_wandb):
    """Import what takes long only in the process that runs these tests."""
    global open_clip, OpenClipTower  # noqa: PLW0603
    import open_clip

    from llava.model.open_clip_tower import OpenClipTower


@pytest.fixture(scope="module", autouse=True)
def _models(_open_clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("open_clip")
    models = {
        "evidence-vit": VIT,
        "evidence-normed": NORMED,
        "evidence-timm": {**TIMM, "timm_model_name": "test_vit", "image_size": 160, "timm_pool": "token"},
        "evidence-registers": {**TIMM, "timm_model_name": "test_vit2", "image_size": 160, "timm_pool": "avg"},
        "evidence-conv": {**TIMM, "timm_model_name": "test_convnext", "image_size": 64, "timm_pool": "avg"},
    }
    for name, vision in models.items():
        config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": TEXT}
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


def with_strong_weights(tower, size=0.8):
    """Random weights that make attention far from even, in float32."""
    generator = torch.Generator().manual_seed(7)
    for parameter in tower.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * size
    return tower.eval()


def siglip():
    config = SiglipVisionConfig(**GEOMETRY)
    config._attn_implementation = "sdpa"
    return with_strong_weights(SiglipTower("siglip", config))


def clip(select_layer=-2, feature="patch"):
    config = CLIPVisionConfig(**GEOMETRY)
    config._attn_implementation = "sdpa"
    return with_strong_weights(ClipTower("openai/tiny", config, select_layer, feature))


def hub(name, select_layer=-2, feature="patch"):
    return with_strong_weights(OpenClipTower(f"open_clip_hub:evidence-{name}", None, select_layer, feature), size=0.4)


@torch.no_grad()
def eager(tower, layers_run):
    """Attention weights (B, heads, L, L) and outputs (B, L, C) of the layers that run, by transformers itself."""
    encoder = copy.deepcopy(tower.vision_tower)
    encoder.set_attn_implementation("eager")
    output = encoder(PIXELS, output_attentions=True, output_hidden_states=True)
    return output.attentions[:layers_run], output.hidden_states[: layers_run + 1]


def same(actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("make", [siglip, clip, lambda: clip(-1), lambda: clip(-2, "cls_patch")])
def test_attention_received_is_that_of_eager_attention(make, layer):
    tower = make()
    prefix = 0 if isinstance(tower, SiglipTower) else 1
    attentions, _ = eager(tower, getattr(tower, "num_layers_run", 3))
    expected = attentions[layer].mean(dim=(1, 2))[:, prefix:].flatten()
    assert expected.max() > 2 * expected.min()
    need = AttentionReceived(layer)
    with torch.no_grad():
        features, evidence = tower.with_evidence(PIXELS, [need])
        torch.testing.assert_close(features, tower(PIXELS), atol=0, rtol=0)
    assert list(evidence) == [need]
    same(evidence[need], expected)
    if prefix == 0:
        same(evidence[need].unflatten(0, (3, 16)).sum(1), torch.ones(3))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("select_layer", "feature"), [(-2, "patch"), (-1, "patch"), (2, "cls_patch")])
def test_class_attention_is_that_of_eager_attention(select_layer, feature, layer):
    tower = clip(select_layer, feature)
    attentions, _ = eager(tower, tower.num_layers_run)
    need = ClassAttention(layer)
    _, evidence = tower.with_evidence(PIXELS, [need])
    same(evidence[need], attentions[layer][:, :, 0, 1:].mean(1).flatten())
    assert not evidence[need].requires_grad


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("make", [siglip, clip])
def test_keys_are_those_of_the_projection(make, layer):
    tower = make()
    prefix = 1 if make is clip else 0
    _, hidden = eager(tower, 3)
    block = tower.vision_tower.encoder.layers[3 + layer]
    keys = block.layer_norm1(hidden[3 + layer]) @ block.self_attn.k_proj.weight.T + block.self_attn.k_proj.bias
    expected = keys.unflatten(-1, (3, 8)).mean(-2)[:, prefix:].flatten(0, 1)
    need = TowerKeys(layer)
    actual = tower.with_evidence(PIXELS, [need])[1][need]
    assert actual.shape == (48, 8)
    same(actual, expected)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("make", [siglip, clip])
def test_joined_heads_are_one_head_of_full_width(make, layer):
    tower = make()
    prefix = 1 if make is clip else 0
    _, hidden = eager(tower, 3)
    block = tower.vision_tower.encoder.layers[3 + layer]
    normed = block.layer_norm1(hidden[3 + layer])
    queries, keys = block.self_attn.q_proj(normed), block.self_attn.k_proj(normed)
    weights = (queries @ keys.mT / 24**0.5).softmax(-1)  # (B, L, L)
    received, of_keys = AttentionReceived(layer, joined=True), TowerKeys(layer, joined=True)
    evidence = tower.with_evidence(PIXELS, [received, of_keys])[1]
    same(evidence[received], weights.mean(1)[:, prefix:].flatten())
    same(evidence[of_keys], keys[:, prefix:].flatten(0, 1))
    if prefix:
        of_class = ClassAttention(layer, joined=True)
        same(tower.with_evidence(PIXELS, [of_class])[1][of_class], weights[:, 0, 1:].flatten())


@torch.no_grad()
@pytest.mark.parametrize("case", ["base_adaptive", "base_fixed", "plus_adaptive", "plus_fixed"])
def test_prumerge_equals_the_original_through_a_whole_tower(golden, case):
    """Its code on a CLIP of 24 layers: features are those of the last but one, attention and keys of the last."""
    folder = golden / "methods" / "prumerge"
    [variant] = [one for one in json.loads((folder / "tower.json").read_text())["variants"] if one["tag"] == case]
    tensors = load_file(folder / "tower.safetensors")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 24, "num_attention_heads": 4}
    config = CLIPVisionConfig(**sizes, image_size=24, patch_size=1, hidden_act="quick_gelu")
    tower = ClipTower("openai/clip", config, -2, "patch").eval()
    weights = {name.removeprefix("w.vision_model."): tensors[name].float() for name in tensors if name[:2] == "w."}
    tower.vision_tower.load_state_dict(weights)
    kind = PruMerge if case.startswith("base") else PruMergePlus
    method = kind(attention_share="adaptive" if case.endswith("adaptive") else 1 / 8, importance="class")
    features, evidence = tower.with_evidence(tensors["pixel_values"][: variant["T"]].float(), method.needs)
    out, plan = method(features.unflatten(1, (24, 24)), evidence)
    frames, places = variant["T"], tensors[f"{case}.idx"].long()
    assert len(plan) == frames * variant["tokens_out"]
    expected, found = tensors[f"{case}.feat_fp"], torch.stack([out.sum(1), out @ (torch.arange(32) / 32)], 1)
    for frame, anchors in enumerate(plan.anchor.view(frames, -1) - 576 * torch.arange(frames)[:, None]):
        centres = Counter(places[frame].tolist())
        [extra] = (Counter(anchors.tolist()) - centres).elements()
        assert Counter(anchors.tolist()) - Counter([extra]) == centres
        rows = found.view(frames, -1, 2)[frame]
        nearest = (expected[frame][:, None] - rows).abs().amax(2).amin(1)
        assert float(nearest.max()) < 2e-3


def test_the_layer_behind_the_features():
    """It runs only if evidence asks for it, also for features with the class token; towers without one say so."""
    needs = [ClassAttention(0), AttentionReceived(0, joined=True), TowerKeys(0)]
    for tower in (clip(), clip(-2, "cls_patch")):
        attentions, hidden = eager(tower, 4)
        features, evidence = tower.with_evidence(PIXELS, needs)
        assert torch.equal(features, tower(PIXELS))
        same(evidence[needs[0]], attentions[3][:, :, 0, 1:].mean(1).flatten())
        block = tower.vision_tower.encoder.layers[3]
        normed = block.layer_norm1(hidden[3])
        queries, keys = block.self_attn.q_proj(normed), block.self_attn.k_proj(normed)
        same(evidence[needs[1]], (queries @ keys.mT / 24**0.5).softmax(-1).mean(1)[:, 1:].flatten())
        same(evidence[needs[2]], keys.unflatten(-1, (3, 8)).mean(-2)[:, 1:].flatten(0, 1))
        with captured([block]) as outputs:
            tower.with_evidence(PIXELS, [ClassAttention()])
        assert not outputs
    other = hub("vit")
    with torch.no_grad():
        weights = weights_of_blocks(other, PIXELS)[3]
        same(other.with_evidence(PIXELS, [needs[0]])[1][needs[0]], weights[:, :, 0, 1:].mean(1).flatten())
    with pytest.raises(ValueError, match=r"the features, and the vision tower .* has none there: use importance=rec"):
        siglip().check_needs([TowerKeys(0)])


@pytest.mark.parametrize("make", [lambda: clip(-1), lambda: hub("vit", -1)], ids=["clip", "open_clip"])
def test_the_last_layer_stands_in_for_one_behind_the_features_of_a_whole_tower(make):
    """PruMerge takes the last block of CLIP, whose output is the features here."""
    tower = make()
    needs = [ClassAttention(0, joined=True), TowerKeys(0), ClassAttention(-1, joined=True), TowerKeys(-1)]
    features, evidence = tower.with_evidence(PIXELS, needs)
    assert torch.equal(features, tower(PIXELS))
    assert torch.equal(evidence[needs[0]], evidence[needs[2]])
    assert torch.equal(evidence[needs[1]], evidence[needs[3]])


def weights_of_blocks(tower, pixels):
    """Weights (B, heads, L, L) of the blocks of an OpenCLIP tower by other code than the tower's fused attention."""
    visual = tower.vision_tower
    weights = []
    if hasattr(visual, "trunk"):
        blocks = list(visual.trunk.blocks)
        for block in blocks:
            block.attn.fused_attn = False
        dropouts = [block.attn.attn_drop for block in blocks]
        with captured(dropouts) as outputs:
            visual(pixels)
        for block in blocks:
            block.attn.fused_attn = True
        return [outputs[dropout] for dropout in dropouts]
    with captured(block.ln_1 for block in visual.transformer.resblocks) as outputs:
        visual(pixels)
    for block in visual.transformer.resblocks:
        tokens, attention = outputs[block.ln_1], block.attn
        if isinstance(attention, torch.nn.MultiheadAttention):
            weights.append(attention(tokens, tokens, tokens, average_attn_weights=False)[1])
        else:
            packed = tokens @ attention.in_proj_weight.T + attention.in_proj_bias
            queries, keys, _ = packed.unflatten(-1, (3, 3, 8)).permute(2, 0, 3, 1, 4)
            scores = attention.ln_q(queries) @ attention.ln_k(keys).mT / 8**0.5
            weights.append(scores.softmax(-1))
    return weights


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("select_layer", [-1, -2])
@pytest.mark.parametrize(("name", "pixels"), [("vit", PIXELS), ("normed", PIXELS), ("timm", LARGE)])
def test_open_clip_towers_agree_with_eager_attention(name, pixels, select_layer, layer):
    tower = hub(name, select_layer)
    received, of_class = AttentionReceived(layer), ClassAttention(layer)
    with torch.no_grad():
        weights = weights_of_blocks(tower, pixels)[select_layer + layer + 1]
        features, evidence = tower.with_evidence(pixels, [received, of_class])
        assert torch.equal(features, tower(pixels))
    same(evidence[received], weights.mean((1, 2))[:, 1:].flatten())
    same(evidence[of_class], weights[:, :, 0, 1:].mean(1).flatten())


def test_register_tokens_are_left_out_and_are_no_class_token():
    tower, need = hub("registers"), AttentionReceived()
    with torch.no_grad():
        weights = weights_of_blocks(tower, LARGE)[-2]
        actual = tower.with_evidence(LARGE, [need])[1][need]
    same(actual, weights.mean((1, 2))[:, 1:].flatten())
    with pytest.raises(ValueError, match=r"asks for a class token, and the vision tower .*evidence-registers has none"):
        tower.check_needs([ClassAttention()])


def test_keys_of_open_clip_towers():
    tower, need = hub("vit"), TowerKeys(-2)
    block = tower.vision_tower.transformer.resblocks[1]
    with torch.no_grad(), captured([block.ln_1]) as outputs:
        actual = tower.with_evidence(PIXELS, [need])[1][need]
        keys = outputs[block.ln_1] @ block.attn.in_proj_weight[24:48].T + block.attn.in_proj_bias[24:48]
    same(actual, keys.unflatten(-1, (3, 8)).mean(-2)[:, 1:].flatten(0, 1))


def test_frame_vectors():
    mean, of_class = FrameVectors("mean"), FrameVectors("class")
    for tower, hidden in ((clip(), 3), (clip(-1, "cls_patch"), 4)):
        states = eager(tower, 4)[1][hidden]
        evidence = tower.with_evidence(PIXELS, [mean, of_class])[1]
        same(evidence[mean], states[:, 1:].mean(1))
        same(evidence[of_class], states[:, 0])
    tower = hub("vit", -3)
    with torch.no_grad(), captured([tower.vision_tower.transformer.resblocks[1]]) as outputs:
        evidence = tower.with_evidence(PIXELS, [mean, of_class])[1]
    (states,) = outputs.values()
    same(evidence[mean], states[:, 1:].mean(1))
    same(evidence[of_class], states[:, 0])
    tower = siglip()
    same(tower.with_evidence(PIXELS, [mean])[1][mean], tower(PIXELS).mean(1))


@pytest.mark.parametrize("block_bytes", [1, 4 * 30, 4 * 17 * 17, 4 * 17 * 17 * 5, 2**30])
def test_blocks_do_not_change_the_result(block_bytes):
    generator = torch.Generator().manual_seed(2)
    queries, keys = torch.randn(2, 2, 3, 17, 8, generator=generator)
    expected = (queries @ keys.mT * 0.3).softmax(-1).mean((1, 2))
    same(attention_received(queries, keys, 0.3, block_bytes), expected)


def test_half_precision_computes_the_softmax_in_float32():
    tower = siglip().to(torch.bfloat16)
    needs = [AttentionReceived(), TowerKeys(), FrameVectors("mean")]
    features, evidence = tower.with_evidence(PIXELS, needs)
    assert features.dtype == torch.bfloat16
    assert {value.dtype for value in evidence.values()} == {torch.float32}
    same(evidence[needs[0]].unflatten(0, (3, 16)).sum(1), torch.ones(3))


@pytest.mark.parametrize("make", [siglip, clip])
def test_offloaded_towers(make):
    """Accelerate fetches the weights of a module when it is called, and takes them away again."""
    needs = [AttentionReceived(-2), TowerKeys(-1), FrameVectors("mean")]
    expected = make().with_evidence(PIXELS, needs)[1]
    tower = accelerate.cpu_offload(make(), "cpu")
    assert tower.device.type == "meta"
    evidence = tower.with_evidence(PIXELS, needs)[1]
    for need in needs:
        torch.testing.assert_close(evidence[need], expected[need])


@pytest.mark.parametrize("fails", [False, True])
def test_no_hook_stays_behind(fails):
    tower = siglip()
    hooks = [len(module._forward_hooks) for module in tower.modules()]
    pixels = torch.rand(1, 3, 5, 5) if fails else PIXELS
    with pytest.raises((ValueError, RuntimeError)) if fails else torch.no_grad():
        tower.with_evidence(pixels, [AttentionReceived(-1), TowerKeys(-2)])
    assert [len(module._forward_hooks) for module in tower.modules()] == hooks


def test_what_towers_offer():
    always = {AttentionReceived, TowerKeys, FrameVectors}
    assert siglip().evidence_offered() == always | {PoolHeadAttention}
    assert clip().evidence_offered() == always | {ClassAttention, JointPatches}
    assert hub("vit").evidence_offered() == always | {ClassAttention}
    assert hub("registers").evidence_offered() == always
    assert hub("conv", feature="conv_flatten").evidence_offered() == {FrameVectors}
    tower = hub("timm")
    tower.vision_tower.trunk.blocks[2].attn = torch.nn.Identity()  # one of a kind that is not known
    assert tower.evidence_offered() == {FrameVectors}
    assert clip(select_layer=0).evidence_offered() == {FrameVectors, JointPatches}


@pytest.mark.parametrize(
    ("make", "need", "message"),
    [
        (
            siglip,
            ClassAttention(),
            r"ClassAttention\(layer=-1, joined=False\) asks for a class token, and the vision tower siglip",
        ),
        (siglip, FrameVectors("class"), r"FrameVectors\(source='class'\) asks for a class token"),
        (siglip, PoolHeadAttention(), r"PoolHeadAttention\(\) asks for the pooling head .* option pool_head, a folder"),
        (siglip, FrameVectors("pool_head"), "load the model with the option pool_head"),
        (clip, PoolHeadAttention(), "the vision tower openai/tiny is not a SigLIP tower"),
        (
            siglip,
            AttentionReceived(-4),
            r"AttentionReceived\(layer=-4, joined=False\): the vision tower siglip runs 3 layers",
        ),
        (
            siglip,
            JointPatches(),
            r"JointPatches\(\) cannot come from the vision tower siglip, which offers AttentionRec",
        ),
        (lambda: hub("conv", feature="conv_flatten"), AttentionReceived(), "evidence-conv, which offers FrameVectors"),
        (lambda: clip(select_layer=0), FrameVectors("class"), "no layer of the vision tower openai/tiny can be watch"),
    ],
)
def test_what_a_tower_cannot_give_is_refused_before_it_runs(make, need, message):
    tower = make()
    with pytest.raises(ValueError, match=message):
        tower.check_needs([FrameVectors(), need])
    with pytest.raises(ValueError, match=message):
        tower.with_evidence(torch.empty(0), [need])


def test_no_needs_cost_nothing():
    tower = siglip()
    features, evidence = tower.with_evidence(PIXELS, ())
    assert torch.equal(features, tower(PIXELS))
    assert evidence == {}
