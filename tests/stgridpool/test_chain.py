"""Several compressors in a row."""

import math
from dataclasses import dataclass

import pytest
import torch

from stgridpool import (
    STTM,
    Average,
    Bilinear,
    Chain,
    Max,
    NoCompression,
    Plan,
    Scorer,
    Step,
    VideoTokens,
    build_compressor,
    compress_tokens,
)
from stgridpool.compressor import planned_counts
from stgridpool.compressors import COMPRESSORS


@dataclass(frozen=True)
class Inside(Average):
    def steps(self):
        return (Step(self, 2),)


@dataclass(frozen=True)
class Largest(Scorer):
    """Keeps the tokens whose first channel is largest."""

    def score(self, tokens, evidence):
        return tokens.features[:, 0]


@dataclass(frozen=True)
class Twice(Scorer):
    """Halves the tokens in layers 1 and 3."""

    def score(self, tokens, evidence):
        return tokens.features[:, 0]

    def steps(self):
        return (Step(Largest(retention=0.5), 1), Step(Largest(retention=0.5), 3, "survive"))


def counting(*shape):
    return torch.arange(math.prod(shape), dtype=torch.float32).view(*shape, 1)


def test_it_is_what_both_would_do_at_layer_0():
    tokens = counting(2, 8, 8)
    both = Chain((Average(kernel_size=2), Inside(kernel_size=2)))
    output, plan = both(tokens)
    blocks = tokens.view(2, 2, 4, 2, 4).mean(dim=(2, 4)).flatten()  # the mean of every 4x4 block
    torch.testing.assert_close(output[:, 0], blocks)
    assert plan.shape == both.planned_shape((2, 8, 8)) == (2, 2, 2)
    assert both.planned_count((2, 8, 8)) == 8
    assert plan.anchor.tolist() == [
        frame * 64 + row * 32 + column * 4 for frame in (0, 1) for row in (0, 1) for column in (0, 1)
    ]


def test_a_first_method_that_is_not_linear_keeps_its_values():
    tokens = counting(2, 8, 8)
    both = Chain((Max(kernel_size=2), Inside(kernel_size=2)))
    # The last token of every 2x2 window is the largest; the mean of four of those is 4.5 above the mean of all 16.
    expected = tokens.view(2, 2, 4, 2, 4).mean(dim=(2, 4)).flatten() + 4.5
    output, plan = both(tokens)
    torch.testing.assert_close(output[:, 0], expected)
    assert not plan.reproduces
    assert torch.equal(plan.anchor, both.plan(VideoTokens.of(tokens), {}).anchor)
    output, plan = build_compressor("max+sttm", sttm={"tokens": 32})(tokens)
    assert torch.equal(output, Max()(tokens).tokens)
    with pytest.raises(ValueError, match="does not determine the values"):
        plan.apply(tokens)


def test_three_methods_of_which_one_prunes():
    tokens = counting(2, 4, 4)
    chain = Chain((Average(), Largest(tokens_per_frame=3), Largest(tokens=2)))
    # 2x2 windows: means of 2.5, 4.5, 10.5, 12.5 in the first frame, and 16 more in the second.
    left, plan = compress_tokens(chain, VideoTokens.of(tokens), {})
    # Two of the video's six, one of each frame: scope "frame" shares alike.
    assert left.features.flatten().tolist() == [12.5, 28.5]
    assert left.places().tolist() == [[0, 1, 1], [1, 1, 1]]
    assert (left.shape, plan.shape, plan.num_sources) == ((2, 2, 2), None, 32)
    assert plan.anchor.tolist() == [10, 26]
    assert plan.sizes().tolist() == [4, 4]
    torch.testing.assert_close(plan.apply(tokens), left.features)


def test_counts_are_planned_through_every_step():
    chain = Chain((Bilinear(), Largest(retention=0.5), Twice()))
    assert planned_counts(chain.steps(), (4, 6, 6)) == [36, 18, 9, 4]
    assert chain.planned_count((4, 6, 6)) == 4
    assert chain.planned_shape((4, 6, 6)) is None
    assert len(chain(torch.randn(4, 6, 6, 3)).plan) == 4
    unknown = Chain((Bilinear(), STTM()))
    assert planned_counts(unknown.steps(), (4, 6, 6)) == [36, None]
    assert unknown.planned_count((4, 6, 6)) is None
    budgeted = Chain((Average(), STTM(retention=0.5)))
    assert budgeted.planned_count((4, 6, 6)) == len(budgeted(torch.randn(4, 6, 6, 3)).plan) == 18


def test_methods_that_need_a_lattice_say_who_can_act_where_there_is_none():
    chain = Chain((Largest(retention=0.5), STTM(retention=0.5)))
    with pytest.raises(ValueError, match=r"16 tokens do not fill a lattice of \(2, 4, 4\); methods .* on them: none"):
        chain(torch.randn(2, 4, 4, 3))


def test_what_cannot_follow_is_refused_when_counts_are_planned():
    """Pruners leave no lattice, whatever they keep; strides, and a resized frame, do."""
    for last in (STTM(retention=0.5), Average()):
        steps = (*Largest(retention=1.0).steps(), *last.steps())
        with pytest.raises(ValueError, match=r"(STTM|Average).* fill a lattice, and Largest.* before it .*: swap them"):
            planned_counts(steps, (2, 4, 4))
    chain = build_compressor("downsample+stride+ts_llava", downsample={"tokens_per_frame": 4}, stride={"temporal": 2})
    assert planned_counts(chain.steps(), (4, 4, 4)) == [16, 8, 2]
    assert planned_counts((*NoCompression().steps(), *Average().steps()), (2, 4, 4), 30)[0] == 30


def test_what_it_says_of_itself():
    both = Chain((NoCompression(), Inside()))
    assert [(step.place, step.positions) for step in both.steps()] == [("patches", "reassign"), (2, "reassign")]
    assert (both.query_aware, both.needs) == (False, frozenset())
    assert repr(both) == f"{NoCompression()!r} + {Inside()!r}"
    assert both == Chain((NoCompression(), Inside()))


def test_the_order_is_that_of_the_model():
    with pytest.raises(
        ValueError,
        match=r"Average\(.* acts at place 'patches', before Inside\(.* at decoder layer 2",
    ):
        Chain((Inside(), Average()))
    with pytest.raises(ValueError, match=r"acts at place 'patches', before Largest\(.* at place 'tokens'"):
        Chain((Largest(), Average()))
    with pytest.raises(ValueError, match=r"acts at decoder layer 1, before Inside\(.* at decoder layer 2"):
        Chain((Average(), Inside(), Twice()))
    with pytest.raises(ValueError, match="a chain must have at least two methods, got 1"):
        Chain((Average(),))
    assert len(Chain((Average(), Average(), Largest(), Twice(), STTM(layer=3))).steps()) == 6


def test_it_is_built_by_names(monkeypatch):
    monkeypatch.setitem(COMPRESSORS, "inside", Inside)
    monkeypatch.setitem(COMPRESSORS, "largest", Largest)
    both = build_compressor("st_gridpool+inside", inside={"kernel_size": 3}, st_gridpool={"preset": "paper"})
    assert both == Chain((build_compressor("st_gridpool", preset="paper"), Inside(kernel_size=3)))
    three = build_compressor("bilinear+largest+inside", largest={"tokens": 5})
    assert three == Chain((Bilinear(), Largest(tokens=5), Inside()))
    with pytest.raises(ValueError, match=r"go under its name, as in .*'inside': {}}, got {'kernel_size': 3}"):
        build_compressor("none+inside", kernel_size=3)
    with pytest.raises(ValueError, match="'none\\+inside\\+none' names a method twice"):
        build_compressor("none+inside+none")


def test_plans_of_a_chain_apply_what_was_decided():
    tokens = torch.randn(8, 4, 4, 5)
    chain = Chain((build_compressor("st_gridpool", preset=None, strides=(1, 2), grid_size=2), Largest(retention=0.3)))
    out, plan = chain(tokens)
    torch.testing.assert_close(plan.apply(tokens), out)
    assert isinstance(plan, Plan)
    assert len(plan.made) == 2
