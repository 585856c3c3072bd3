"""Evidence: how it follows the tokens, and who may ask for it."""

from dataclasses import dataclass

import pytest
import torch

from stgridpool import Average, Max, Plan, Scorer, Step, VideoTokens, build_compressor
from stgridpool.compressor import PATCHES, TOKENS, compress_steps
from stgridpool.evidence import (
    AttentionReceived,
    ClassAttention,
    FrameVectors,
    QueryAttention,
    Question,
    TowerKeys,
    check_offered,
    through,
)
from stgridpool.frame_evidence import FrameCosines


def test_rows_follow_their_tokens_and_all_else_stays():
    attention, keys = torch.tensor([1.0, 2.0, 3.0, 6.0]), torch.arange(8.0).view(4, 2)
    vectors, question = torch.randn(1, 3), torch.randn(5, 7)
    evidence = {AttentionReceived(): attention, TowerKeys(): keys, FrameVectors(): vectors, Question(): question}
    kept = through(evidence, Plan.keep(torch.tensor([3, 1]), 4))
    assert kept[AttentionReceived()].tolist() == [6.0, 2.0]
    assert kept[TowerKeys()].tolist() == [[6.0, 7.0], [2.0, 3.0]]
    assert kept[FrameVectors()] is vectors
    assert kept[Question()] is question
    pooled = Average()(torch.randn(1, 2, 2, 3)).plan
    assert through(evidence, pooled)[AttentionReceived()].tolist() == [3.0]
    assert through(evidence, pooled)[TowerKeys()].tolist() == [[3.0, 4.0]]


def test_attention_of_every_head_and_row_follows_its_tokens():
    need = QueryAttention(1, "relevant", "none")
    attention = torch.arange(16.0).view(4, 2, 2)
    assert through({need: attention}, Plan.keep(torch.tensor([2, 0]), 4))[need].tolist() == attention[[2, 0]].tolist()
    pooled = Average()(torch.randn(1, 2, 2, 3)).plan
    assert through({need: attention}, pooled)[need].tolist() == [[[6.0, 7.0], [8.0, 9.0]]]
    nothing = Plan.keep(torch.tensor([], dtype=torch.long), 4)
    assert through({need: attention}, nothing)[need].shape == (0, 2, 2)


def test_evidence_is_averaged_and_not_summed():
    """A merger whose weights sum to 2, and a window of which only the tokens are known."""
    plan = Plan.merge(torch.tensor([0, 0]), torch.tensor([0]), torch.tensor([1.5, 0.5]))
    assert through({AttentionReceived(): torch.tensor([2.0, 4.0])}, plan)[AttentionReceived()].tolist() == [2.5]
    largest = Max()(torch.randn(1, 2, 2, 3)).plan
    assert through({ClassAttention(): torch.tensor([1.0, 2.0, 3.0, 6.0])}, largest)[ClassAttention()].tolist() == [3.0]


@dataclass(frozen=True)
class MostAttended(Scorer):
    @property
    def needs(self):
        return frozenset({ClassAttention()})

    def score(self, tokens, evidence):
        assert set(evidence) == {ClassAttention()}
        assert len(evidence[ClassAttention()]) == len(tokens)
        return evidence[ClassAttention()]


def test_each_method_gets_what_it_asked_for_about_the_tokens_that_it_sees():
    maps = torch.arange(16.0).view(1, 4, 4, 1)
    windows = torch.tensor([[1.0, 4.0], [3.0, 2.0]])
    attention = windows.repeat_interleave(2, 0).repeat_interleave(2, 1).flatten()
    steps = (*Average().steps(), *MostAttended(tokens=2).steps(), *MostAttended(tokens=1).steps())
    tokens, plan, evidence = compress_steps(steps, VideoTokens.of(maps), {ClassAttention(): attention})
    assert tokens.cell.tolist() == [1]  # the window at the top on the right
    assert plan.anchor.tolist() == [2]
    assert evidence[ClassAttention()].tolist() == [4.0]


def test_evidence_that_is_missing_is_named():
    with pytest.raises(ValueError, match=r"MostAttended\(.* needs evidence: ClassAttention\(layer=-1, joined=False\)"):
        MostAttended(tokens=1)(torch.randn(1, 2, 2, 3))
    with pytest.raises(ValueError, match=r"MostAttended\(.* needs evidence: ClassAttention"):
        compress_steps(MostAttended(tokens=1).steps(), VideoTokens.of(torch.randn(1, 2, 2, 3)), {})
    out, _ = MostAttended(tokens=1)(torch.eye(4).view(1, 2, 2, 4), {ClassAttention(): torch.tensor([0.0, 1, 3, 2])})
    assert out.tolist() == [[0, 0, 1, 0]]


def test_a_model_refuses_what_it_does_not_offer():
    check_offered({ClassAttention()}, {ClassAttention}, "x")
    check_offered((), (), "x")
    with pytest.raises(
        ValueError, match=r"'me' needs TowerKeys\(layer=-1, joined=False\); this model offers ClassAttention, Question"
    ):
        check_offered([TowerKeys(), Question()], {Question, ClassAttention}, "me")
    with pytest.raises(ValueError, match="this model offers tokens alone"):
        check_offered([Question()], set(), "me")


def test_vectors_of_frames_follow_frames_that_become_one():
    """Frames 0 and 1 become one, and frame 2 alone; a matrix between frames is averaged along both axes."""
    tokens = VideoTokens.of(torch.rand(3, 2, 2, 4))
    vectors, matrix = torch.tensor([[1.0], [3.0], [7.0]]), torch.tensor([[1.0, 3, 5], [3, 1, 7], [5, 7, 1]])
    given = {FrameVectors(): vectors, FrameCosines(): matrix}
    step = Step(build_compressor("temporal_average", group=2), TOKENS)
    _, _, about = compress_steps([step], tokens, given)
    torch.testing.assert_close(about[FrameVectors()], torch.tensor([[2.0], [7.0]]))
    torch.testing.assert_close(about[FrameCosines()], torch.tensor([[2.0, 6], [6, 1]]))
    same = compress_steps([Step(build_compressor("average"), PATCHES)], tokens, given)[2]
    assert same[FrameVectors()] is vectors
