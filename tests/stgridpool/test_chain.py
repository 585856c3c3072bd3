"""Two compressors in a row."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from stgridpool import Average, Composed, Max, NoCompression, build_compressor
from stgridpool.compressor import Budget
from stgridpool.compressors import COMPRESSORS


@dataclass(frozen=True)
class Inside(Average):
    stage: ClassVar[str | int] = 2


def test_it_is_what_both_would_do_at_layer_0():
    tokens = torch.arange(2 * 8 * 8, dtype=torch.float32).view(2, 8, 8, 1)
    both = Composed(Average(kernel_size=2), Inside(kernel_size=2))
    output, plan = both(tokens)
    blocks = tokens.view(2, 2, 4, 2, 4).mean(dim=(2, 4)).flatten()  # the mean of every 4x4 block
    torch.testing.assert_close(output[:, 0], blocks)
    assert plan.shape == (2, 2, 2)
    assert both.planned_count((2, 8, 8)) == 8


def test_a_first_method_that_is_not_linear_keeps_its_values():
    tokens = torch.arange(2 * 8 * 8, dtype=torch.float32).view(2, 8, 8, 1)
    both = Composed(Max(kernel_size=2), Inside(kernel_size=2))
    # The last token of every 2x2 window is the largest; the mean of four of those is 4.5 above the mean of all 16.
    expected = tokens.view(2, 2, 4, 2, 4).mean(dim=(2, 4)).flatten() + 4.5
    torch.testing.assert_close(both(tokens).tokens[:, 0], expected)
    assert torch.equal(both(tokens).plan.place, both.plan(tokens).place)
    kept_apart = build_compressor("max+sttm", sttm={"tokens": 32})(tokens).tokens
    assert torch.equal(kept_apart, Max()(tokens).tokens)


def test_what_it_says_of_itself():
    both = Composed(NoCompression(), Inside())
    assert (both.stage, both.query_aware, both.needs, both.budget) == (2, False, frozenset(), Budget())
    assert repr(both) == f"{NoCompression()!r} + {Inside()!r}"
    with pytest.raises(ValueError, match=r"must name a method in front .* got stages 'before_llm' and 'before_llm'"):
        Composed(NoCompression(), Average())


def test_it_is_built_by_two_names(monkeypatch):
    monkeypatch.setitem(COMPRESSORS, "inside", Inside)
    both = build_compressor("st_gridpool+inside", inside={"kernel_size": 3}, st_gridpool={"preset": "paper"})
    assert both == Composed(build_compressor("st_gridpool", preset="paper"), Inside(kernel_size=3))
    with pytest.raises(ValueError, match=r"go under the name of each, .*'inside': {}}, got {'kernel_size': 3}"):
        build_compressor("none+inside", kernel_size=3)
    with pytest.raises(ValueError, match="two methods can be joined"):
        build_compressor("none+inside+none")
