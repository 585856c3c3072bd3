"""Operations by formula against a hand computation, and against what torch counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode


def test_by_hand(benchmarking):
    geometry = benchmarking("geometry").GEOMETRIES["7B"]
    assert (geometry.patches, geometry.key_value_width) == (27 * 27, 512)
    # Per patch and layer 4 matrices of 1152 x 1152 and 2 of 1152 x 4304, and 2 products with 729 keys or values.
    layer = 729 * 2 * (4 * 1152 * 1152 + 2 * 1152 * 4304 + 2 * 729 * 1152)
    assert geometry.vision_flops() == 729 * 2 * 588 * 1152 + 26 * layer
    # Per token and layer 4 matrices of attention and 3 of the feed-forward block; on average half of the positions.
    weights = 3584 * 3584 * 2 + 3584 * 512 * 2 + 3584 * 18944 * 3
    assert geometry.prefill_flops(1000) == 28 * 1000 * 2 * (weights + 2 * 500 * 3584)


@pytest.fixture(scope="module")
def parts(benchmarking, small):
    return benchmarking("random_model").make_model(small, ["What?"], torch.float32, torch.device("cpu"))


def counted(call):
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        call()
    return counter.get_total_flops()


def test_the_tower_as_torch_counts_it(parts, small):
    tower = parts.model.get_vision_tower()
    assert counted(lambda: tower(torch.zeros(3, 3, 56, 56))) == 3 * small.vision_flops()


def test_the_prefill_as_torch_counts_it(parts, small):
    length = 40
    by_torch = counted(lambda: parts.model.model(inputs_embeds=torch.zeros(1, length, small.width)))
    attention = small.layers * 4 * length**2 * small.width  # torch counts all pairs of positions
    assert by_torch - attention / 2 == small.prefill_flops(length)
