"""Attention and keys of native vision towers: those of the pass that encodes, in the order of the tokens."""

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

import stgridpool
from native_models.prompts import load_with, make_frames
from stgridpool.adapters import adapter_for, tower_evidence, visual_runs
from stgridpool.adapters.method import check_needs
from stgridpool.evidence import AttentionReceived, FrameVectors, TowerKeys

NEEDS = [AttentionReceived(), AttentionReceived(-2), AttentionReceived(joined=True), TowerKeys(), FrameVectors("mean")]
NAMES = ["llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"]
PROMPT = ["Look", make_frames(4, 43, 48), "and", make_frames(4, 30, 20, seed=1), "Why?"]
pytestmark = pytest.mark.adapters


def attention_of_last_layer(model, tower, inputs):
    """Queries and keys of every call in the last layer, noted by a function of our own."""
    noted, last = [], list(tower.modules())

    def note(module, query, key, value, attention_mask, **kwargs):
        noted.append((last.index(module), query, key))
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    AttentionInterface.register("noted", note)
    AttentionMaskInterface.register("noted", sdpa_mask)
    tower.set_attn_implementation("noted")
    try:
        with torch.no_grad():
            visual_runs(adapter_for(model), model, inputs)
    finally:
        tower.set_attn_implementation("sdpa")
    deepest = max(place for place, _, _ in noted)
    return [(query, key) for place, query, key in noted if place == deepest]


@pytest.mark.parametrize("name", NAMES)
def test_features_are_those_without_evidence_and_the_tower_is_as_before(name):
    model, inputs = load_with(name, PROMPT)
    adapter = adapter_for(model)
    tower = adapter.tower(model)
    with torch.no_grad():
        plain, watched = visual_runs(adapter, model, inputs), visual_runs(adapter, model, inputs, NEEDS)
    for one, other in zip(plain, watched, strict=True):
        assert torch.equal(one.visual.tokens, other.visual.tokens)
        seen = one.visual.tokens if one.visual.patches is None else one.visual.patches
        for need in NEEDS[:-1]:
            assert len(other.visual.evidence[need]) == seen.shape[:3].numel()
        assert torch.equal(other.visual.evidence[NEEDS[-1]], seen.mean(dim=(1, 2)))
    assert tower.config._attn_implementation == "sdpa"
    assert model.config.get_text_config()._attn_implementation == "sdpa"


@pytest.mark.parametrize("joined", [False, True])
def test_attention_of_siglip_is_that_of_the_formula(joined):
    model, inputs = load_with("llava_onevision", PROMPT)
    tower = model.model.vision_tower
    with torch.no_grad():
        runs = visual_runs(adapter_for(model), model, inputs, [AttentionReceived(joined=joined)])
    ((query, key),) = attention_of_last_layer(model, tower, inputs)
    if joined:
        query, key = (heads.transpose(1, 2).flatten(2)[:, None] for heads in (query, key))
    received = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1).mean(dim=(1, 2)).flatten()
    found = torch.cat([run.visual.evidence[AttentionReceived(joined=joined)] for run in runs])
    torch.testing.assert_close(found, received)


@pytest.mark.parametrize("name", NAMES[1:])
def test_rows_of_qwen_towers_stand_at_their_tokens(name):
    """Which token each group of four patches becomes is read off the merger: its rows, and where they end up."""
    model, inputs = load_with(name, PROMPT)
    merged = []
    handle = model.model.visual.merger.register_forward_hook(lambda module, args, output: merged.append(output))
    with torch.no_grad():
        runs = visual_runs(adapter_for(model), model, inputs, [AttentionReceived(), TowerKeys(joined=True)])
    handle.remove()
    tokens = torch.cat([run.visual.tokens.flatten(0, 2) for run in runs])
    group = (tokens[:, None] == merged[0][None]).all(-1).int().argmax(1)  # of each token
    assert len(set(group.tolist())) == len(tokens)
    calls = attention_of_last_layer(model, model.model.visual, inputs)
    received = torch.cat([(q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).mean(dim=(1, 2)).flatten() for q, k in calls])
    keys = torch.cat([key.transpose(1, 2).flatten(2)[0] for _, key in calls])
    for need, rows in {AttentionReceived(): received, TowerKeys(joined=True): keys}.items():
        found = torch.cat([run.visual.evidence[need] for run in runs])
        torch.testing.assert_close(found, rows.unflatten(0, (-1, 4)).mean(1)[group])


def test_nothing_watches_a_tower_that_refuses_to_be_watched(monkeypatch):
    model, inputs = load_with("qwen2_vl", PROMPT)
    adapter, own = adapter_for(model), model.model.visual.set_attn_implementation

    def refuse(name):
        if name != "sdpa":
            raise KeyError(name)
        own(name)

    monkeypatch.setattr(model.model.visual, "set_attn_implementation", refuse)
    with pytest.raises(KeyError, match="stgridpool_sdpa"):
        visual_runs(adapter, model, inputs, NEEDS)
    assert tower_evidence._watcher.get() is None
    assert model.model.visual.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("name", NAMES)
def test_missing_layers_and_parts_are_refused_by_name(name):
    model, _ = load_with(name, PROMPT)
    adapter = adapter_for(model)
    with pytest.raises(ValueError, match=r"AttentionReceived\(layer=-4.*the vision tower of .* runs 3 layers"):
        check_needs(adapter, model, stgridpool.AOT(shallow=-4, deep=-1))
    with pytest.raises(ValueError, match=r"TowerKeys\(layer=0.* native models compute nothing after their features"):
        tower_evidence.check_tower_needs(adapter, model, [TowerKeys(0)])
    with pytest.raises(ValueError, match=r"needs PoolHeadAttention.*this model offers AttentionReceived, FrameVectors"):
        stgridpool.compress(model, "fastvid")
    with pytest.raises(ValueError, match=r"FrameVectors\(source='pool_head'\) asks for a part that native"):
        stgridpool.compress(model, "fastvid", importance="received")
    stgridpool.compress(model, "fastvid", importance="received", frames="mean")
    with pytest.raises(ValueError, match="JointPatches"):
        stgridpool.compress(model, "cdpruner", relevance="tower")
