"""SigLIP's pooling head against transformers' own, loaded from a whole tower beside a checkpoint that lacks it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SiglipConfig, SiglipModel, SiglipVisionConfig, SiglipVisionModel

from llava.model.builder import load_pretrained_model
from llava.model.capture import captured
from stgridpool.evidence import AttentionReceived, FrameVectors, PoolHeadAttention

GEOMETRY = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "image_size": 28,
    "patch_size": 7,
}
TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
PIXELS = torch.rand(6, 3, 28, 28, generator=torch.Generator().manual_seed(1))
ATTENTION, VECTORS = PoolHeadAttention(), FrameVectors("pool_head")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """The whole tower, with weights that make its head attend unevenly, and its folder."""
    folder = tmp_path_factory.mktemp("pool_head") / "original"
    whole = SiglipVisionModel(SiglipVisionConfig(**GEOMETRY)).eval()
    generator = torch.Generator().manual_seed(7)
    for parameter in whole.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.8
    whole.save_pretrained(folder)
    return whole, folder


@pytest.fixture(scope="module")
def load(write_checkpoint, original):
    """Loads a checkpoint whose tower is the original one without its end."""
    folder, _ = write_checkpoint(
        original[1].parent / "checkpoint",
        without="model.vision_tower",
        mm_vision_tower=str(original[1]),
        mm_hidden_size=24,
        mm_tunable_parts="mm_mlp_adapter",
    )

    def load(pool_head=None, dtype="float32"):
        options = {"torch_dtype": dtype, "attn_implementation": "sdpa", "pool_head": pool_head}
        return load_pretrained_model(str(folder), None, "x", **options)[1]

    return load


def test_attention_and_vectors_are_those_of_the_whole_tower(load, original):
    whole, folder = original
    tower = load(str(folder)).get_vision_tower()
    with torch.no_grad():
        with captured([whole.head.attention]) as outputs:
            expected = whole(PIXELS).pooler_output
        features, evidence = tower.with_evidence(PIXELS, [ATTENTION, VECTORS, AttentionReceived()])
        hidden = whole(PIXELS, output_hidden_states=True).hidden_states[-2]
        probe = whole.head.probe.expand(6, -1, -1)
        last = whole(PIXELS).last_hidden_state
        by_itself = whole.head.attention(probe, last, last, need_weights=True)[1]
    torch.testing.assert_close(outputs[whole.head.attention][1], by_itself)
    torch.testing.assert_close(features, hidden)
    assert evidence[ATTENTION].shape == (96,)
    torch.testing.assert_close(evidence[ATTENTION], by_itself.flatten(), atol=1e-5, rtol=0)
    torch.testing.assert_close(evidence[VECTORS], expected, atol=1e-5, rtol=1e-5)
    assert by_itself.max() > 2 * by_itself.min()


def test_the_whole_model_and_shards_in_the_format_of_the_hub_will_do(load, original, tmp_path):
    """Of google/siglip-so400m-patch14-384: names that start with vision_model, and the text half beside them."""
    whole, folder = original
    both = SiglipModel(SiglipConfig(vision_config=GEOMETRY, text_config=TEXT))
    both.vision_model.load_state_dict(whole.state_dict())
    both.save_pretrained(tmp_path / "both", max_shard_size="20KB")
    assert len(list((tmp_path / "both").glob("*.safetensors"))) > 1
    names = json.loads((tmp_path / "both" / "model.safetensors.index.json").read_text())["weight_map"]
    assert "vision_model.head.probe" in names
    evidence = load(str(tmp_path / "both")).vision_features(PIXELS, needs=[ATTENTION])[1]
    expected = load(str(folder)).vision_features(PIXELS, needs=[ATTENTION])[1]
    assert torch.equal(evidence[ATTENTION], expected[ATTENTION])


def test_the_model_itself_stays_as_it_is(load, original):
    without, with_head = load(), load(str(original[1]))
    assert without.state_dict().keys() == with_head.state_dict().keys()
    head = with_head.get_vision_tower().pool_head
    assert sum(weights.numel() for weights in head.modules().parameters()) == sum(
        weights.numel()
        for part in (original[0].encoder.layers[-1], original[0].post_layernorm, original[0].head)
        for weights in part.parameters()
    )


def test_it_computes_in_the_dtype_of_the_tower(load, original):
    tower = load(str(original[1]), "bfloat16").get_vision_tower()
    assert {weights.dtype for weights in tower.pool_head.modules().parameters()} == {torch.bfloat16}
    evidence = tower.with_evidence(PIXELS, [ATTENTION])[1]
    assert evidence[ATTENTION].dtype == torch.float32
    sums = evidence[ATTENTION].unflatten(0, (6, 16)).sum(1)
    torch.testing.assert_close(sums, torch.ones(6), atol=1e-2, rtol=0)


def changed(folder, to, weights=lambda tensors: tensors):
    to.mkdir()
    tensors = weights(load_file(folder / "model.safetensors"))
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return str(to)


def without(tensors, start):
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(start)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: without(tensors, "head."), "holds no pooling head: name the SigLIP model"),
        (lambda tensors: without(tensors, "encoder.layers.3."), "has 3 layers, and the tower it belongs to has 4"),
        (
            lambda tensors: without(tensors, "post_layernorm.bias"),
            r"post_layernorm.bias must be \(24,\) and is missing",
        ),
        (
            lambda tensors: {**tensors, "head.probe": torch.zeros(1, 1, 32)},
            r"head.probe must be \(1, 1, 24\) and is \(1, 1, 32\); name the SigLIP model that the tower was made from",
        ),
    ],
)
def test_other_models_are_refused(load, original, tmp_path, change, message):
    other = changed(original[1], tmp_path / "other", change)
    with pytest.raises(ValueError, match=rf"pool_head='{other}' .*{message}"):
        load(other)


def test_a_missing_folder_is_named_before_weights_are_read(rejection, llava_golden):
    message = rejection(llava_golden / "ckpt-video", pool_head="/nowhere/siglip")
    assert message.startswith("pool_head='/nowhere/siglip': /nowhere/siglip does not exist")


def test_only_siglip_towers_have_one(make_checkpoint, original):
    folder, _ = make_checkpoint(
        mm_vision_tower="openai/tiny",
        vision_config={**GEOMETRY, "model_type": "clip_vision_model"},
        mm_hidden_size=24,
        image_aspect_ratio="pad",
    )
    with pytest.raises(ValueError, match=r"only SigLIP towers have a pooling head, and openai/tiny is not one"):
        load_pretrained_model(str(folder), None, "x", attn_implementation="sdpa", pool_head=str(original[1]))
