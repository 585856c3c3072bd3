"""Chains under one budget, by hand: 8 frames of 196 own tokens, 1568 in all, in a model of 28 layers."""

from dataclasses import replace

import pytest
import torch

from llava.nvila.own_pooling import BlockAverage
from stgridpool import Average, VideoTokens, build_compressor
from stgridpool.compressor import PATCHES, Step, compress_steps
from stgridpool.equal_budget import Reference, meet, planned_layers, planned_retention

OWN = Reference(Average(kernel_size=2), (28, 28), 28)
OF_27 = Reference(build_compressor("bilinear"), (27, 27), 28)  # 14x14 tokens of 27x27


def layers(name, share, of, reference=OWN, **options):
    return planned_layers(meet(build_compressor(name, **options), share, of, reference), 8, reference)


def test_the_method_in_front_leaves_what_the_mean_needs():
    """Layers 2 to 27 hold half of what enters: x (2 + 26 / 2) = 28 / 4, so x = 7 / 15 of 1568 = 731, and half of it."""
    assert layers("visionzip+fastv", 0.25, "layer_average") == [731] * 2 + [365] * 26
    assert layers("visionzip+fastv", 0.25, "kv_read") == [731] * 2 + [365] * 26
    method = meet(build_compressor("visionzip+fastv"), 0.25, "layer_average", OWN)
    assert method.methods[0].retention == pytest.approx(7 / 15)
    assert method.methods[1] == build_compressor("fastv")
    assert planned_retention(method, 8, OWN)["layer_average"] == pytest.approx(0.25, abs=2 / 1568)


def test_methods_inside_leave_more_where_the_front_cannot():
    """x (2 + 26 / 2) = 28 * 0.9 would be 1.68: all 1568 enter, and (25.2 - 2) / 26 of them stay, 1399."""
    assert layers("visionzip+fastv", 0.9, "layer_average") == [1568] * 2 + [1399] * 26


def test_what_enters_and_what_is_left_at_the_end():
    assert layers("visionzip+fastv", 0.25, "entering_llm") == [392] * 2 + [196] * 26
    assert layers("visionzip+fastv", 0.25, "last_layer") == [784] * 2 + [392] * 26
    assert layers("visionzip+fastv", 0.75, "last_layer") == [1568] * 2 + [1176] * 26


def test_every_part_counts_in_a_chain_of_three():
    """13x13 of 14x14 tokens reach visionzip: 1352 of 1568. x (2 + 26 / 2) = 7 of 1568 are 731 again, 0.541 of 1352."""
    assert layers("average+visionzip+fastv", 0.25, "layer_average", OF_27) == [731] * 2 + [365] * 26
    assert layers("average+visionzip", 0.25, "entering_llm", OF_27) == [392] * 28
    with pytest.raises(
        ValueError, match=r"^Average\([^+]*\) leaves 0.8622 of the tokens, so entering_llm cannot be 0.9"
    ):
        meet(build_compressor("average+visionzip"), 0.9, "entering_llm", OF_27)


def test_mosaics_have_a_budget_with_a_method_behind_them():
    """All 784 patches of a frame pass PTG, four times the own tokens, so a 16th of them is a quarter."""
    method = meet(build_compressor("ptg+downsample"), 0.25, "entering_llm", OWN)
    assert method.methods[1].retention == 1 / 16
    assert planned_layers(method, 8, OWN) == [392] * 28


def test_a_pyramid_inside_keeps_its_fractions():
    """From layers 7, 14 and 21: x (7 + 7 / 2 + 7 / 4 + 7 / 8) = 28 / 10 gives 334 of 1568, then 167, 83 and 41."""
    counts = [334] * 7 + [167] * 7 + [83] * 7 + [41] * 7
    assert layers("divprune+pyramid_drop", 0.1, "layer_average") == counts


def test_a_pyramid_inside_leaves_more_where_the_front_cannot_or_has_no_budget():
    """All enter layers 0 to 6. 0.3 * 28 - 7 = 1.4 = 7 x (1 / 2 + 1 / 4 + 1 / 8), so x = 8 / 35: 179, 89 and 44 stay.

    A half in the last layer is four times an eighth; from layers 7 and 14 on everything stays then.
    """
    counts = [1568] * 7 + [179] * 7 + [89] * 7 + [44] * 7
    assert layers("average+pyramid_drop", 0.3, "layer_average") == counts
    assert layers("divprune+pyramid_drop", 0.5, "last_layer") == [1568] * 21 + [784] * 7
    with pytest.raises(ValueError, match=r"would have to leave .*, which is not an option: ask for less"):
        meet(build_compressor("divprune+fastv+pyramid_drop"), 0.9, "layer_average", OWN)


def test_methods_inside_that_the_video_decides_meet_a_mean_without_a_budget_in_front():
    for name in ("framefusion", "st_simdiff"):
        assert meet(build_compressor(f"average+{name}"), 0.4, "layer_average", OWN).methods[1].layer_average == 0.4


@pytest.mark.parametrize("name", ["framefusion", "st_simdiff"])
def test_methods_inside_that_the_video_decides_keep_their_mean_if_the_front_can(name):
    """0.3 of what enters: a half of all tokens makes it 0.15, and all of them make 0.6 of what enters 0.6."""
    chain = build_compressor(f"visionzip+{name}", **{name: {"layer_average": 0.3}})
    for share, entering, inside in ((0.15, 0.5, 0.3), (0.6, 1.0, 0.6)):
        method = meet(chain, share, "layer_average", OWN)
        assert (method.methods[0].retention, method.methods[1].layer_average) == pytest.approx((entering, inside))
    with pytest.raises(ValueError, match=r"no budget by which entering_llm could be 0\.2: a method inside leaves less"):
        meet(chain, 0.2, "entering_llm", OWN)
    with pytest.raises(ValueError, match=r"has no budget by which last_layer could be 0\.2"):
        meet(chain, 0.2, "last_layer", OWN)


def test_a_method_before_layer_0_leaves_what_enters():
    """Half of all tokens enter the language model, and half of those remain in every layer."""
    with pytest.raises(ValueError, match=r"entering_llm could be 0\.25: a method inside leaves less before layer 0"):
        meet(
            build_compressor("divprune+pyramid_drop", pyramid_drop={"layers": [0], "keep": [0.5]}),
            0.25,
            "entering_llm",
            OWN,
        )
    found = layers("divprune+pyramid_drop", 0.25, "layer_average", pyramid_drop={"layers": [0], "keep": [0.5]})
    assert found == [392] * 28


def test_what_the_length_decides_is_known_for_one_video():
    """Of 5 frames, groups of 4 leave 2, so that a fifth of all is a half of those; of any number it is not known."""
    chain = build_compressor("temporal_average+visionzip")
    assert meet(chain, 0.2, "entering_llm", replace(OWN, num_frames=5)).methods[1].retention == 0.5
    assert meet(chain, 0.2, "entering_llm", OWN).methods[1].retention == 0.8  # of 4, 8 ... 64 frames
    pooled = build_compressor("adaptive_pool+visionzip", adaptive_pool={"frames": 4, "size": 14})
    assert meet(pooled, 0.2, "entering_llm", replace(OWN, num_frames=8)).methods[1].retention == 0.4
    with pytest.raises(ValueError, match=r"what AdaptivePool.* leaves must be a known share of the tokens"):
        meet(pooled, 0.2, "entering_llm", OWN)


def test_a_pruner_that_merges_what_it_drops_has_its_budget():
    """As visionzip above."""
    assert layers("recycle+fastv", 0.25, "layer_average") == [731] * 2 + [365] * 26


@pytest.mark.parametrize("name", ["earlytom_frames+visionzip+fastv", "earlytom_frames+average+visionzip+fastv"])
def test_a_budget_behind_steps_in_the_tower_counts_all_frames(name):
    """So that it is the one without these steps; how many tokens are left of it, the frames left decide."""
    method = meet(build_compressor(name), 0.25, "layer_average", OWN)
    assert method.methods[-2].retention == pytest.approx(7 / 15)
    assert set(planned_layers(method, 8, OWN)) == {None}
    with pytest.raises(ValueError, match=r"what EarlyTomFrames.* leaves must be a known share of the tokens"):
        meet(build_compressor("earlytom_frames+fastv"), 0.25, "layer_average", OWN)


def test_the_own_pooling_may_join_frames_behind_steps_in_the_tower():
    """Pooling joins 64 frames of 4x4 to 8, 128 tokens. A quarter is 32, however many frames the tower drops."""
    own = BlockAverage(((8, 1, 1),))
    video = torch.ones(64, 4, 4, 3) + 0.01 * torch.randn(64, 4, 4, 3, generator=torch.Generator().manual_seed(0))
    for name in ("earlytom_frames+random", "earlytom_frames+recycle", "earlytom_frames+evs+random"):
        options = {"evs": {"pruning_rate": 0.2}} if "evs" in name else {}
        method = meet(build_compressor(name, **options), 0.25, "entering_llm", Reference(own, (4, 4), 28))
        steps = list(method.steps())
        steps.insert(3, Step(own, PATCHES))
        assert len(compress_steps(steps, VideoTokens.of(video), {})[0]) == 32, name


def test_a_merger_inside_has_the_budget_of_its_method():
    """As visionzip and fastv above, also where fastv has to give way."""
    fastv = {"recycle": {"method": "fastv"}}
    assert layers("visionzip+recycle", 0.25, "layer_average", **fastv) == [731] * 2 + [365] * 26
    assert layers("visionzip+recycle", 0.9, "layer_average", **fastv) == [1568] * 2 + [1399] * 26


def test_a_method_in_front_that_acts_inside_once_more_counts():
    """x (1 + 1 / 2 + 26 / 4) = 28 / 4, so x = 7 / 8 of 1568; a mean of 0.3 would take more than all, 8.4 / 8."""
    options = {"holitom": {"layer": 1}}
    assert layers("holitom+fastv", 0.25, "layer_average", **options) == [1372, 686] + [343] * 26
    for share, of in ((0.3, "layer_average"), (0.3, "last_layer")):
        with pytest.raises(ValueError, match=r"HoliTomInner.* would have to leave .*, which is not an option"):
            meet(build_compressor("holitom+fastv", **options), share, of, OWN)


@pytest.mark.parametrize("of", ["entering_llm", "layer_average", "last_layer", "kv_read"])
def test_layers_are_those_of_the_model(of):
    """A pyramid drops before layers 7, 14 and 21 of 28."""
    with pytest.raises(ValueError, match=r"FastV.* acts at layer 28, and the language model has 28 layers: choose an"):
        meet(build_compressor("divprune+fastv", fastv={"layer": 28}), 0.25, of, OWN)
    with pytest.raises(ValueError, match=r"PyramidDropLayer.* acts at decoder layer 7, before FastV.* layer 8"):
        meet(build_compressor("divprune+fastv+pyramid_drop", fastv={"layer": 8}), 0.25, of, OWN)


def test_without_a_budget_in_front_those_inside_meet_it():
    """13x13 of 14x14 tokens enter 2 layers; the mean wants (28 * 392 - 2 * 1352) / 26 = 318.2 in the others."""
    assert layers("average+fastv", 0.25, "layer_average", OF_27) == [1352] * 2 + [318] * 26
    assert layers("average+fastv", 0.25, "last_layer", OF_27) == [1352] * 2 + [392] * 26
    with pytest.raises(ValueError, match=r"has no budget by which entering_llm could be 0.25"):
        meet(build_compressor("average+fastv"), 0.25, "entering_llm", OF_27)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("visionzip+fastv", {"fastv": {"tokens": 9}}, "methods inside must leave a fraction, not FastV"),
        ("visionzip+sparsevlm", {}, "methods inside must leave a fraction, not SparseVLMLayer"),
        ("stride+divprune+fastv", {"stride": {"tokens": 99}}, "Stride.* leaves must be a known share of the tokens"),
        ("ptg+nsp", {}, "has no budget by which layer_average could be 0.25"),
    ],
)
def test_a_chain_that_cannot_says_why(name, options, message):
    with pytest.raises(ValueError, match=message):
        meet(build_compressor(name, **options), 0.25, "layer_average", OWN)
