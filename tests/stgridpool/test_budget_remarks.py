"""Remarks on budgets that are not left exactly: by hand."""

import pytest
import torch

from stgridpool import Average, build_compressor
from stgridpool.budget import warn_of_large_budget
from stgridpool.budget_remarks import budget_remarks
from stgridpool.equal_budget import Reference

OWN = Reference(Average(kernel_size=2), (8, 8), 28)  # 16 tokens a frame


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("divprune", {"tokens": 64}, None),
        ("divprune", {"tokens": 65}, "DivPrune keeps all 64 tokens that reach it: its budget, tokens=65, is larger"),
        (
            "visionzip+fastv",
            {"visionzip": {"retention": 0.25}, "fastv": {"tokens": 20}},
            "FastV keeps all 16 tokens that reach it: its budget, tokens=20, is larger",
        ),
        (
            "random+divprune",
            {"random": {"tokens": 20}, "divprune": {"tokens_per_frame": 6}},
            "DivPrune keeps all 20 tokens that reach it: its budget, tokens_per_frame=6, is larger",
        ),
        ("random+divprune", {"random": {"tokens": 20}, "divprune": {"tokens_per_frame": 5}}, None),
        (
            "recycle",
            {"method": "norm_topk", "options": {"tokens": 100}},
            "Recycle keeps all 64 tokens that reach it: its budget, tokens=100, is larger",
        ),
        ("average", {"kernel_size": 4}, None),
        ("sttm", {}, None),
    ],
)
def test_a_budget_above_what_is_left(name, options, expected):
    """Four frames of 8x8 patches."""
    assert budget_remarks(build_compressor(name, **options), 4, OWN) == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("name", "kind", "preset"),
    [
        ("vidcom2", "VidCom2", "released"),
        ("fastvid", "FastVID", "released_onevision"),
        ("flashvid", "FlashVID", "released"),
        ("flashvid", "FlashVID", "released_attn_div"),
        ("holitom", "HoliTom", "released"),
        ("prunevid", "PruneVid", "released"),
        ("earlytom", "EarlyTom", "released"),
    ],
)
def test_presets_that_may_miss_a_budget(name, kind, preset):
    method = build_compressor(name, preset=preset, retention=0.25)
    said = (
        f"preset={preset!r} of {kind} may miss its budget, retention=0.25: the video decides how many tokens it leaves"
    )
    assert budget_remarks(method, 4, OWN) == [said]
    exact = "released" if name == "fastvid" else "corrected"
    if name != "earlytom":  # where fewer frames are left, both
        assert budget_remarks(build_compressor(name, preset=exact, retention=0.25), 4, OWN) == []


def test_means_over_layers_of_released_presets():
    """They refer to 28 layers, and are rounded, or count one layer where there are two."""
    said = "preset='released' of FrameFusion may miss its budget, layer_average=0.5: it "
    method = build_compressor("framefusion", preset="released", layer_average=0.5)
    assert budget_remarks(method.for_depth(28), 4, OWN) == [said + "rounds, as its code does"]
    assert budget_remarks(method.for_depth(32), 4, OWN) == [said + "assumes 28 layers and rounds, as its code does"]
    chain = build_compressor("average+st_simdiff", st_simdiff={"preset": "released"}).for_depth(28)
    assert budget_remarks(chain, 4, OWN) == [
        "preset='released' of STSimDiff may miss its budget, layer_average=0.3: it counts one layer before its cut, as "
        "its code does"
    ]
    assert budget_remarks(build_compressor("framefusion").for_depth(32), 4, OWN) == []


def test_a_budget_above_what_is_left_is_a_warning_once(caplog):
    method = build_compressor("random+stride", random={"tokens": 5}, stride={"tokens": 7, "temporal": None})
    for frames in (2, 3):
        assert len(method(torch.randn(frames, 4, 4, 3)).tokens) == 5
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "tokens=7" in record.message
    assert record.message.endswith("keeps all tokens that reach it: its budget is larger")


def test_methods_that_were_warned_of_do_not_pile_up():
    for number in range(2000):
        warn_of_large_budget(f"method {number}")
    assert warn_of_large_budget.cache_info().currsize <= 1024
