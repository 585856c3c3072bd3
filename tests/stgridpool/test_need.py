"""Needs: what may be asked for."""

import pytest

from stgridpool.question_needs import QueryAttention, Question, RotaryBias
from stgridpool.tower_needs import (
    AttentionReceived,
    ClassAttention,
    FrameVectors,
    JointPatches,
    PoolHeadAttention,
    TowerKeys,
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AttentionReceived(1), "layer must be a whole number from -1000 to 0, got 1"),
        (lambda: ClassAttention(-1001), "got -1001"),
        (lambda: TowerKeys(-1.0), "got -1.0"),
        (lambda: AttentionReceived(True), "got True"),
        (lambda: TowerKeys(joined="yes"), "joined must be True or False"),
        (lambda: FrameVectors("cls"), "source cannot be 'cls'"),
        (lambda: Question("text"), "space cannot be 'text'"),
        (lambda: QueryAttention(-1), "layer must be a whole number from 0 to 1000, got -1"),
        (lambda: QueryAttention(2, rows="first"), "rows cannot be 'first'"),
        (lambda: QueryAttention(2, reduce="sum"), "reduce cannot be 'sum'"),
        (lambda: RotaryBias(-1), "layer must be a whole number from 0 to 1000, got -1"),
        (lambda: RotaryBias(2, rows="all"), "rows cannot be 'all'"),
    ],
)
def test_needs_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_needs_are_keys_whose_text_says_all():
    assert repr(QueryAttention(3)) == "QueryAttention(layer=3, rows='last', reduce='mean')"
    assert repr(PoolHeadAttention()) == "PoolHeadAttention()"
    assert {AttentionReceived(-2): 1}[AttentionReceived(-2)] == 1
    assert len({AttentionReceived(), ClassAttention(), TowerKeys(), AttentionReceived(-1)}) == 3


def test_which_look_at_the_question():
    needs = [AttentionReceived(), ClassAttention(), PoolHeadAttention(), TowerKeys(), FrameVectors()]
    assert not any(need.query_aware for need in needs)
    assert Question().query_aware
    assert QueryAttention().query_aware
    assert RotaryBias().query_aware
    assert not JointPatches().query_aware
