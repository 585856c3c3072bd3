"""Equal rows by hand, and ties between them where a matrix product alone would decide otherwise."""

import pytest
import torch

from stgridpool import ToMe
from stgridpool.algorithms.equal_rows import first_equals
from stgridpool.algorithms.most_similar import most_similar
from stgridpool.compressors.fastvid import _senders
from stgridpool.compressors.visionzip import send_to_targets


def test_the_first_of_equal_rows_in_each_set():
    one, other, third = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]
    rows = torch.tensor([[one, other, one, other, third], [third, third, other, one, [float("nan")] * 3]])
    assert first_equals(rows).tolist() == [[0, 1, 0, 1, 4], [0, 0, 2, 3, 4]]
    assert first_equals(torch.zeros(1, 3, 2)).tolist() == [[0, 0, 0]]


@pytest.fixture
def set_threads():
    """Function that sets the number of threads, which is restored."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def still():
    """25 random tokens, 16 times: a video of a still picture, in which every cosine is a tie."""
    return torch.randn(25, 33, generator=torch.Generator().manual_seed(0)).repeat(16, 1)


@pytest.mark.parametrize(("number", "repeats", "asked"), [(3, 33, 2), (3, 9, 3), (13, 3, 17), (7, 3, 40)])
def test_the_first_of_equals_takes_a_token(still, set_threads, number, repeats, asked):
    features = still[:number].repeat(repeats, 1)
    tokens = torch.arange(asked) % len(features)
    for threads in (1, 3, 4):
        set_threads(threads)
        nearest = most_similar(features, tokens, torch.arange(len(features)))
        assert torch.equal(nearest, tokens % number)


def test_the_first_of_equal_targets_takes_a_token(still, set_threads):
    """Two tokens in pairs, nine times: every other one is a target, so that the first two targets take the rest."""
    features = still[:2].repeat_interleave(2, 0).repeat(9, 1)
    places = torch.arange(36)
    first = places // 2 % 2 * 2
    for threads in (1, 3, 4):
        set_threads(threads)
        targets, goes_to = send_to_targets(features, torch.tensor([36]), torch.tensor([18]))
        assert torch.equal(targets, places[::2])
        assert torch.equal(goes_to, torch.where(places % 2 == 0, places, first))
        everything = torch.ones(36, dtype=torch.bool)
        centre, source = _senders(features[None], everything, {0: places[:18]}, torch.tensor([1]), own_too=True)
        assert torch.equal(centre, first)
        assert torch.equal(source, places)


@pytest.mark.parametrize("preset", ["corrected", "released"])
@pytest.mark.parametrize("number", [5, 25])
def test_pairs_of_a_still_video_merge_in_order_of_place(still, preset, number, set_threads):
    """Every even token finds its equal a frame before or after: the first odd one is in frame 0 or 1."""
    video, joined = still[:number].repeat(16, 1), 3 * number
    even, place = torch.arange(0, 16 * number, 2), torch.arange(0, 16 * number, 2) % number
    goes_to = torch.arange(16 * number)
    goes_to[even[:joined]] = torch.where(place % 2 == 1, place, place + number)[:joined]
    for threads in (1, 3, 4):
        set_threads(threads)
        plan = ToMe(tokens=13 * number, scope="video", preset=preset)(video.view(16, number, 1, 33)).plan
        root = torch.empty(16 * number, dtype=torch.int64)
        root[plan.rows.sources] = plan.anchor[plan.rows.row_of_entry()]
        assert torch.equal(root, goes_to)
