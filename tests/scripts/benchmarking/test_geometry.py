"""Operations by formula against a hand computation, and against the layers that run."""

import pytest
import torch


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


def operations_of_weights(module, call):
    """Two per weight and position of every linear layer and convolution that runs."""
    counts = []

    def count(layer, _, output):
        counts.append(2 * output.numel() * layer.weight[0].numel())

    handles = [
        m.register_forward_hook(count) for m in module.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)
    ]
    with torch.inference_mode():
        call()
    for handle in handles:
        handle.remove()
    return sum(counts)


def test_the_tower_as_its_layers_run(parts, small):
    tower = parts.model.get_vision_tower()
    counted = operations_of_weights(tower, lambda: tower(torch.zeros(3, 3, 56, 56)))
    # The last of 3 layers is dropped. Scores and values: 2 products of 16 patches with 16, 32 channels each.
    attention = 2 * 2 * 2 * 16 * 16 * 32
    assert counted + 3 * attention == 3 * small.vision_flops()


def test_the_prefill_as_its_layers_run(parts, small):
    decoder, length = parts.model.model, 40
    counted = operations_of_weights(decoder, lambda: decoder(inputs_embeds=torch.zeros(1, length, small.width)))
    # In 2 layers, scores and values: 2 products of 40 positions with half of 40, 64 channels each.
    attention = 2 * 2 * 2 * 40 * 20 * 64
    assert counted + attention == small.prefill_flops(length)
