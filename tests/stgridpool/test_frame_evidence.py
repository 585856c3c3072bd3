"""What steps inside the vision tower leave behind for later ones."""

from dataclasses import dataclass

import pytest
import torch

from stgridpool import Compressor, Plan, Step, compress_tokens
from stgridpool.compressor import FRAMES, TOKENS, EncoderLayer
from stgridpool.evidence import FrameVectors
from stgridpool.frame_evidence import FrameCosines, FrameSources, frame_weights
from stgridpool.frames.groups import even_groups, pool_over_time
from stgridpool.frames.patterns import every_token
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class InPairs(Compressor):
    """Averages every two frames."""

    def plan(self, tokens, evidence):
        groups = even_groups(tokens.shape[0], tokens.shape[0] // 2)
        return pool_over_time(groups, every_token(tokens.shape[1:]), tokens.shape)


@dataclass(frozen=True, eq=False)
class First(Compressor):
    """Keeps the first token, and every evidence that it gets."""

    seen: list

    @property
    def needs(self):
        return frozenset({FrameSources(), FrameCosines()})

    def plan(self, tokens, evidence):
        self.seen.append(evidence)
        return Plan.keep(torch.tensor([0]), len(tokens))


@dataclass(frozen=True)
class Both(Compressor):
    """Averages after two layers, and then keeps the first token."""

    last: First

    def plan(self, tokens, evidence):
        return compress_tokens(self, tokens, evidence)[1]

    def steps(self):
        return Step(InPairs(), EncoderLayer(-2)), Step(InPairs(), EncoderLayer(-1)), Step(self.last, TOKENS)


def test_each_step_adds_to_what_the_one_before_left():
    """Eight frames become four, and these two, each the mean of four."""
    maps = torch.randn(8, 2, 3, 4)
    last = First([])
    compress_tokens(Both(last), VideoTokens.of(maps), {})
    [evidence] = last.seen
    assert evidence[FrameSources()].tolist() == [[0.25] * 4 + [0] * 4, [0] * 4 + [0.25] * 4]
    first, second = maps.unflatten(0, (2, 4)).mean(1)
    cosine = torch.nn.functional.cosine_similarity(first, second, dim=-1).mean()
    torch.testing.assert_close(evidence[FrameCosines()][0, 1], cosine)


@pytest.mark.parametrize("place", [FRAMES, EncoderLayer(-1), TOKENS])
def test_vectors_of_frames_follow_steps_at_any_place(place):
    """Of tokens that are given to a method as they are; those of two frames that become one are averaged."""

    @dataclass(frozen=True, eq=False)
    class Last(First):
        needs = frozenset({FrameVectors("mean")})

    @dataclass(frozen=True)
    class Once(Both):
        def steps(self):
            return Step(InPairs(), place), Step(self.last, TOKENS)

    vectors, last = torch.randn(8, 5), Last([])
    compress_tokens(Once(last), VideoTokens.of(torch.randn(8, 2, 3, 4)), {FrameVectors("mean"): vectors})
    [evidence] = last.seen
    torch.testing.assert_close(evidence[FrameVectors("mean")], vectors.unflatten(0, (4, 2)).mean(1))


def test_without_such_a_step_it_is_missing():
    with pytest.raises(ValueError, match=r"needs evidence: FrameCosines\(\), FrameSources\(\)"):
        compress_tokens(First([]), VideoTokens.of(torch.randn(2, 2, 2, 4)), {})


def test_weights_of_frames():
    plan = pool_over_time(even_groups(3, 2), every_token((2, 2)), (3, 2, 2))
    assert frame_weights(plan, (3, 2, 2)).tolist() == [[1, 0, 0], [0, 0.5, 0.5]]
