"""ST-GridPool: golden numbers of the original, presets, and that it is PTG and then NSP."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from stgridpool import NSP, PTG, STGridPool, build_compressor


def test_equals_the_original(golden):
    folder = golden / "stgridpool"
    tensors = load_file(folder / "ptg.safetensors")
    cases = json.loads((folder / "ptg_cases.json").read_text())
    assert len(cases) == 43
    for case in cases:
        dtype = getattr(torch, case["dtype"])
        tokens = tensors[case["x"]][: case["T"]].view(case["T"], case["H"], case["W"], -1).to(dtype)
        pairs = list(zip(case["grid_size_list"], case["grid_freq_list"], strict=False))
        compressor = STGridPool(
            preset=None,
            strides=tuple(stride for _, stride in pairs),
            grid_size=tuple(size for size, _ in pairs),
            kernel_size=case["kernel_size"],
            stride=case["stride"],
            padding=case["padding"],
            norm_order=case["p"],
            scale=case["temp"],
        )
        expected = tensors[case["y"]]
        out = compressor(tokens).tokens.view(expected.shape)
        if dtype == torch.float32:
            torch.testing.assert_close(out, expected, atol=2e-5, rtol=0, msg=case["name"])
        else:
            limit = {torch.bfloat16: 0.01, torch.float16: 0.003}[dtype]
            assert (out.float() - expected.float()).norm() < limit * expected.float().norm(), case["name"]


@pytest.mark.parametrize("frames", [1, 7, 8, 33, 64])
@pytest.mark.parametrize(
    "options", [{}, {"ceil_mode": True}, {"kernel_size": 3, "norm_order": 1, "scale": 3.0}], ids=str
)
def test_is_ptg_and_then_nsp(frames, options):
    tokens = torch.randn(frames, 7, 6, 5)
    compressor = STGridPool(**options)
    gridded = PTG(window=8, levels=3)(tokens).tokens.view(tokens.shape)
    expected, expected_plan = NSP(**options)(gridded)
    out, plan = compressor(tokens)
    torch.testing.assert_close(out, expected)
    assert torch.equal(plan.anchor, expected_plan.anchor)
    assert plan.shape == expected_plan.shape
    torch.testing.assert_close(plan.flatten().apply(tokens), expected)


def test_presets():
    assert STGridPool() == STGridPool(preset="released")
    released = STGridPool()
    assert (released.strides, released.grid_size, released.kernel_size, released.ceil_mode) == ((2, 4, 8), 4, 2, False)
    assert (released.norm_order, released.scale, released.padding, released.stride) == (2.0, 1.0, 0, 2)
    assert STGridPool(preset="paper").strides == (1, 2, 4)


def test_options_take_precedence_over_the_preset():
    assert STGridPool(levels=2).strides == (2, 4)
    assert STGridPool(window=16).strides == (4, 8, 16)
    assert STGridPool(strides=(3,)).strides == (3,)
    assert STGridPool(preset="paper", kernel_size=3).stride == 3


def test_a_preset_that_was_changed_is_not_named():
    assert STGridPool(strides=(3,)).preset is None
    assert replace(STGridPool(), preset="paper").preset is None  # the strides of the first are given, too
    assert STGridPool(grid_size=2).preset is None
    assert STGridPool(preset="paper", strides=(1, 2, 4)).preset == "paper"
    assert STGridPool(kernel_size=2, scale=1, norm_order=2).preset == "released"


def test_without_a_preset_every_option_comes_from_the_call():
    assert STGridPool(preset=None, strides=(1, 2)).strides == (1, 2)
    with pytest.raises(ValueError, match="without a preset, strides or window and levels must be given"):
        STGridPool(preset=None)


def test_sizes():
    assert STGridPool().planned_count((64, 27, 27)) == 64 * 169
    assert STGridPool(ceil_mode=True).planned_count((64, 27, 27)) == 64 * 196
    assert STGridPool(kernel_size=(2, 4), stride=(2, 4)).planned_count((8, 16, 16)) == 8 * 16 * 16 // 8


@pytest.mark.parametrize(
    "options",
    [{"ceil_mode": True}, {"kernel_size": 3}, {"stride": 1}, {"padding": 1}, {"norm_order": 1}, {"scale": 0.5}],
    ids=str,
)
@pytest.mark.parametrize("preset", STGridPool.PRESETS)
def test_a_preset_is_named_only_while_every_option_is_its_own(preset, options):
    assert STGridPool(preset=preset).preset == preset
    compressor = STGridPool(preset=preset, **options)
    assert compressor.preset is None
    assert compressor.strides == STGridPool(preset=preset).strides


@pytest.mark.parametrize("options", [{"preset": "papr"}, {"kernel_size": 0}, {"norm_order": -2}, {"window": 6}])
def test_bad_options(options):
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"{name} |{name}=|window of"):
        build_compressor("st_gridpool", **options)
