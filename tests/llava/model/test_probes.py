"""Methods of every kind on a tiny checkpoint: counts are the planned ones, tokens those of a run by hand."""

import pytest
import torch
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from llava.constants import IMAGE_TOKEN_INDEX
from stgridpool import Bilinear, FasterVLM, Random, Stride, VideoTokens, VisionZip, build_compressor, compress_tokens
from stgridpool.compressor import planned_counts
from stgridpool.evidence import AttentionReceived, TowerKeys

PROMPT = [[1, 2, 3, IMAGE_TOKEN_INDEX, 4, 5, 6]]
NEEDS = (AttentionReceived(), TowerKeys())


@pytest.fixture
def model(video_checkpoint, monkeypatch):
    monkeypatch.setattr(video_checkpoint.model.config, "mm_newline_position", "no_token")
    yield video_checkpoint.model
    video_checkpoint.model.compressor = None


def pooled_by_hand(model, frames):
    """Patches, pooled as the checkpoint asks for, and evidence that went the same way."""
    features, evidence = model.vision_features(frames, needs=NEEDS)
    tokens, pooling = compress_tokens(Bilinear(), VideoTokens.of(model._as_maps(model.project(features))), {})
    carried = {
        NEEDS[0]: pooling.mean(evidence[NEEDS[0]][:, None])[:, 0],
        NEEDS[1]: pooling.mean(evidence[NEEDS[1]]),
    }
    return tokens, carried


@pytest.mark.parametrize(
    "method",
    [Random(seed=3), Stride(retention=0.3), Stride(temporal=3, spatial=2), FasterVLM(), VisionZip(retention=0.4)],
    ids=lambda method: type(method).__name__,
)
@torch.no_grad()
def test_in_front_of_the_language_model(model, video_frames, method):
    frames = video_frames[:8]
    model.compressor = method
    video = model.encode_video(frames)
    tokens, evidence = pooled_by_hand(model, frames)
    left, plan = compress_tokens(method, tokens, evidence)
    assert video.num_tokens == len(plan) == method.planned_count(tokens.shape) < len(tokens)
    assert torch.equal(video.embeds, left.features)
    assert (video.shape, video.cell is None) == (left.shape, plan.shape is not None)
    logits = model(torch.tensor(PROMPT), images=[frames], modalities=["video"]).logits
    assert logits.shape[1] == len(PROMPT[0]) - 1 + len(plan)


@torch.no_grad()
def test_a_method_behind_a_method_is_named_by_the_user(model, video_frames):
    frames = video_frames[:6]
    model.compressor = VisionZip(tokens=50)
    expected = model.encode_video(frames)
    model.compressor = build_compressor("bilinear+visionzip", visionzip={"tokens": 50})
    video = model.encode_video(frames)
    assert torch.equal(video.embeds, expected.embeds)
    assert torch.equal(video.plan.anchor, expected.plan.anchor)
    assert len(video.embeds) == 50
    # What is inside the language model gets to see the tokens' own evidence.
    tokens, evidence = pooled_by_hand(model, frames)
    plan = VisionZip(tokens=50).plan(tokens, evidence)
    torch.testing.assert_close(video.evidence[NEEDS[1]], plan.mean(evidence[NEEDS[1]]))


@torch.no_grad()
def test_three_methods_at_three_places(model, video_frames):
    """Pooling, VisionZip and FastV: what each layer sees, which tokens, and the logits, against each step by hand."""
    frames, body = video_frames[:6], model.model
    method = build_compressor(
        "bilinear+visionzip+fastv", visionzip={"tokens_per_frame": 7}, fastv={"tokens": 15, "layer": 1}
    )
    assert planned_counts(method.steps(), (6, 7, 7)) == [96, 42, 15]
    model.compressor = method
    seen = []
    hooks = [
        layer.register_forward_hook(lambda module, args, output: seen.append(output.shape[1])) for layer in body.layers
    ]
    logits = model(torch.tensor(PROMPT), images=[frames], modalities=["video"]).logits
    for hook in hooks:
        hook.remove()
    num_text = len(PROMPT[0]) - 1
    assert seen == [num_text + 42] + [num_text + 15] * (len(body.layers) - 1)

    tokens, evidence = pooled_by_hand(model, frames)
    left, _ = compress_tokens(VisionZip(tokens_per_frame=7), tokens, evidence)
    texts = [model.get_input_embeddings()(torch.tensor(part)) for part in (PROMPT[0][:3], PROMPT[0][4:])]
    hidden, positions = torch.cat([texts[0], left.features, texts[1]])[None], torch.arange(num_text + 42)
    attention = attention_of_last_row(body, hidden, positions)[3 : 3 + 42]
    kept = attention.topk(15).indices.sort().values
    assert model.decoder_steps.last.plans[0][0][0].kept().tolist() == kept.tolist()
    survivors = torch.cat([torch.arange(3), 3 + kept, torch.arange(3 + 42, num_text + 42)])
    hidden = run_layers(body, hidden, positions, body.layers[:1])[:, survivors]
    hidden = run_layers(body, hidden, positions[survivors], body.layers[1:])
    expected = model.lm_head(body.norm(hidden))
    torch.testing.assert_close(logits[:, -1], expected[:, -1], atol=1e-4, rtol=1e-4)


def run_layers(body, hidden, positions, layers):
    """Run decoder layers by hand, with a causal mask written out."""
    mask = torch.full((len(positions), len(positions)), torch.finfo(hidden.dtype).min).triu(1)[None, None]
    rotary = body.rotary_emb(hidden, positions[None])
    for layer in layers:
        hidden = layer(hidden, attention_mask=mask, position_ids=positions[None], position_embeddings=rotary)
    return hidden


def attention_of_last_row(body, hidden, positions):
    """The mean over heads of the attention that the last token pays in the first layer, (L,)."""
    layer = body.layers[0]
    attention, normed = layer.self_attn, layer.input_layernorm(hidden)
    shape = (1, len(positions), -1, attention.head_dim)
    queries, keys = (project(normed).view(shape).transpose(1, 2) for project in (attention.q_proj, attention.k_proj))
    queries, keys = apply_rotary_pos_emb(queries, keys, *body.rotary_emb(hidden, positions[None]))
    keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1)
    scores = (queries[:, :, -1:] @ keys.mT)[:, :, 0] / attention.head_dim**0.5
    return scores.softmax(-1).mean(1)[0]
