"""When answers end."""

from types import SimpleNamespace

import pytest
import torch

from lmms_eval_stgridpool.answers.stopping import Limits, Until

SPECIAL = 256


def decode(ids, skip_special_tokens):
    """Each id is a byte; 256 is a special token."""
    assert skip_special_tokens
    return bytes(one for one in ids if one != SPECIAL).decode(errors="replace")


TOKENIZER = SimpleNamespace(decode=decode)


def first_stop(words, text):
    """Bytes of `text` after which generation stops, as it is asked after each; None if it does not."""
    criterion, ids = Until(words, TOKENIZER), list(text.encode())
    for length in range(1, len(ids) + 1):
        if bool(criterion(torch.tensor([ids[:length]]), None)):
            return length
    return None


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        (("end",), "a long text that comes to its end here", 33),
        (("end", "xt"), "a long text that comes to its end", 11),
        (("\n\n",), " \n\n  B is it \n\nand more", 15),
        ((" \n",), " \nB   \n", 7),
        (("né",), "où est-il né", 14),
        (("",), "anything", None),
        ((), "anything", None),
        (("end",), "en d", None),
    ],
)
def test_until_stops_at_the_token_that_completes_a_word(words, text, expected):
    words = tuple(word for word in words if word)  # as the settings read them
    assert first_stop(words, text) == expected


def test_until_decodes_little():
    lengths = []

    def counting(ids, skip_special_tokens):
        lengths.append(len(ids))
        return decode(ids, skip_special_tokens)

    criterion = Until(("end",), SimpleNamespace(decode=counting))
    for length in range(1, 200):
        criterion(torch.full((2, length), ord("x")), None)
    assert max(lengths) == 4


def test_limits_end_each_answer_by_its_own_rules():
    limits = Limits([[Until(("b",), TOKENIZER)], [Until(("z",), TOKENIZER)], []], [9, 9, 2])
    ids = torch.tensor([list(b"abc"), list(b"xyz"), list(b"def")])
    assert [limits(ids[:, :length], None).tolist() for length in (1, 2, 3)] == [
        [False, False, False],
        [True, False, True],
        [True, True, True],
    ]
    assert limits.lengths == [2, 3, 2]
