"""CDPruner: golden numbers of the original, relevance and scopes by hand, edges."""

import json

import pytest
import torch
from safetensors.torch import load_file

from stgridpool import CDPruner, VideoTokens
from stgridpool.evidence import JointPatches, Question


def test_equals_the_original(golden):
    """All 20 cases; the tokens of all frames of a case are scaled together."""
    folder = golden / "methods" / "cdpruner"
    variants = json.loads((folder / "manifest.json").read_text())["variants"]
    inputs, expected = load_file(folder / "inputs.safetensors"), load_file(folder / "cdpruner.safetensors")
    assert len(variants) == len(expected) == 20
    for variant in variants:
        case, area = variant["case"], variant["H"] * variant["W"]
        tokens = inputs[f"{case}.x"].float().view(variant["T"], variant["H"], variant["W"], -1)
        evidence = {
            JointPatches(): inputs[f"{case}.image_embeds"].float().flatten(0, 1),
            Question("tower"): inputs[f"{case}.text_embeds"].float(),
        }
        method = CDPruner(tokens_per_frame=variant["k"], relevance="tower")
        order = expected[f"{case}.{variant['tag']}.order"].long()
        kept = order.sort(1).values + torch.arange(len(order))[:, None] * area
        assert method(tokens, evidence).plan.kept().tolist() == kept.flatten().tolist(), variant


# Four tokens, two of which are copies. The question is like x, so cosines are 1, 1, 0.6, 0; scaled 1, 1, 0.6, about 0.
TOKENS = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
QUESTION = {Question("decoder"): torch.tensor([[3.0, 1.0], [1.0, -1.0]])}


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"tokens": 1}, [0]),
        ({"tokens": 2}, [0, 2]),  # 2 gains 0.36 * (1 - 0.36), the copy nothing
        ({"tokens": 4}, [0, 1, 2, 3]),
    ],
)
def test_by_hand(options, kept):
    assert CDPruner(**options)(TOKENS.view(1, 2, 2, 2), QUESTION).plan.kept().tolist() == kept


def test_patches_least_like_the_text_are_relevant():
    """At right angles to each other all tokens are different, so that relevance decides."""
    patches = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 1.0]])
    evidence = {JointPatches(): patches, Question("tower"): torch.tensor([[2.0, 0.0]])}
    kept = CDPruner(tokens=2, relevance="tower")(torch.eye(4).view(1, 2, 2, 4), evidence).plan.kept()
    assert kept.tolist() == [1, 2]


def test_scopes_and_frames_of_different_sizes():
    """The video's two best are both in frame 0; frames of one and three tokens share three as one and two."""
    features = torch.eye(4)
    question = {Question("decoder"): torch.tensor([[0.5, 0.9, 0.1, 0.2]])}
    maps = features.view(2, 1, 2, 4)
    assert CDPruner(tokens=2, scope="video")(maps, question).plan.kept().tolist() == [0, 1]
    assert CDPruner(tokens=2)(maps, question).plan.kept().tolist() == [1, 3]
    tokens = VideoTokens(features, (2, 2, 2), torch.tensor([3, 4, 5, 6]))
    assert CDPruner(tokens=3).plan(tokens, question).kept().tolist() == [0, 1, 3]


def test_equal_relevance_does_not_count():
    """All are at right angles to the question; of two pairs of copies the first of each is kept."""
    tokens = torch.eye(3)[[0, 0, 1, 1]].view(1, 2, 2, 3)
    question = {Question("decoder"): torch.tensor([[0.0, 0.0, 1.0]])}
    assert CDPruner(tokens=2)(tokens, question).plan.kept().tolist() == [0, 2]


def test_needs_and_bad_options():
    assert CDPruner() == CDPruner(retention=0.25, scope="frame", relevance="decoder")
    assert CDPruner().query_aware
    assert CDPruner().needs == {Question("decoder")}
    assert CDPruner(relevance="tower").needs == {Question("tower"), JointPatches()}
    assert [step.place for step in CDPruner().steps()] == ["tokens"]
    with pytest.raises(ValueError, match="relevance cannot be 'clip'"):
        CDPruner(relevance="clip")
    with pytest.raises(ValueError, match="scope cannot be 'image'"):
        CDPruner(scope="image")
