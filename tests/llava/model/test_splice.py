"""Splicing: order, labels, dealing visuals to prompts, truncation, padding."""

import pytest
import torch

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.model.splice import cut_to, deal_visuals, join_pieces, pad_rows, splice_batch


def embed(ids):
    return ids[:, None].float()


def visual(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_visuals_stand_where_the_placeholders_were():
    ids = torch.tensor([1, IMAGE_TOKEN_INDEX, 2, 3, IMAGE_TOKEN_INDEX])
    embeds, labels = join_pieces(ids, [visual(90, 91), visual(80)], embed, ids)
    assert embeds.flatten().tolist() == [1, 90, 91, 2, 3, 80]
    assert labels.tolist() == [1, IGNORE_INDEX, IGNORE_INDEX, 2, 3, IGNORE_INDEX]


def test_a_prompt_without_labels_or_text():
    embeds, labels = join_pieces(torch.tensor([IMAGE_TOKEN_INDEX]), [visual(5, 6)], embed)
    assert embeds.flatten().tolist() == [5, 6]
    assert labels.tolist() == [IGNORE_INDEX] * 2


def test_the_numbers_must_agree():
    with pytest.raises(ValueError, match="2 image placeholders, got 1 visuals"):
        join_pieces(torch.tensor([IMAGE_TOKEN_INDEX, IMAGE_TOKEN_INDEX]), [visual(1)], embed)


@pytest.mark.parametrize(
    ("counts", "given", "dealt", "warns"),
    [
        ([1, 1], 2, [[0], [1]], ""),
        ([0, 2], 3, [[], [1, 2]], ""),
        ([3], 2, [[0, 1, 1]], "the last one is shown again"),
        ([1], 4, [[0]], "the last ones are not shown"),
        ([0, 0], 0, [[], []], ""),
    ],
)
def test_dealing(caplog, counts, given, dealt, warns):
    visuals = [visual(index) for index in range(given)]
    assert [[int(v) for v in row] for row in deal_visuals(counts, visuals)] == dealt
    assert warns in caplog.text
    assert bool(caplog.text) == bool(warns)


def test_cutting_warns_with_the_numbers(caplog):
    row = (torch.zeros(10, 2), torch.zeros(10))
    assert cut_to(row, None) is row
    assert cut_to(row, 10) is row
    assert not caplog.text
    assert [len(part) for part in cut_to(row, 7)] == [7, 7]
    assert "3 of 10 tokens were cut" in caplog.text
    assert "question" in caplog.text


@pytest.mark.parametrize(
    ("side", "mask", "positions"),
    [
        ("right", [[1, 1, 1], [1, 0, 0]], [[0, 1, 2], [0, 0, 0]]),
        ("left", [[1, 1, 1], [0, 0, 1]], [[0, 1, 2], [0, 0, 0]]),
    ],
)
def test_padding(side, mask, positions):
    rows = [(visual(1, 2, 3), torch.tensor([1, 2, 3])), (visual(9), torch.tensor([9]))]
    batch = pad_rows(rows, side)
    assert batch.attention_mask.long().tolist() == mask
    assert batch.position_ids.tolist() == positions
    real = batch.attention_mask[1]
    assert batch.embeds[1][real].flatten().tolist() == [9]
    assert batch.embeds[1][~real].abs().sum() == 0
    assert set(batch.labels[1][~real].tolist()) == {IGNORE_INDEX}


def test_padding_sides():
    with pytest.raises(ValueError, match="must be 'left' or 'right'"):
        pad_rows([(visual(1), torch.tensor([1]))], "both")


def test_masked_positions_are_dropped_before_splicing():
    ids = torch.tensor([[7, 1, IMAGE_TOKEN_INDEX], [2, IMAGE_TOKEN_INDEX, 3]])
    mask = torch.tensor([[0, 1, 1], [1, 1, 0]])
    batch = splice_batch(ids, [visual(50), visual(60)], embed, attention_mask=mask)
    assert batch.embeds[..., 0].tolist() == [[1, 50], [2, 60]]
