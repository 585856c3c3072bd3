"""ST-GridPool: golden numbers of the original, presets, and that it is PTG and then NSP."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from stgridpool import NSP, PTG, Bilinear, STGridPool, build_compressor, presets


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
@pytest.mark.parametrize("write", ["replace", "append", "blend"])
def test_is_ptg_and_then_nsp(frames, options, write):
    tokens = torch.randn(frames, 7, 6, 5)
    compressor = STGridPool(write=write, **options)
    gridded, gridding = PTG(window=8, levels=3, write=write)(tokens)
    expected, expected_plan = NSP(**options)(gridded.view(-1, *tokens.shape[1:]))
    out, plan = compressor(tokens)
    torch.testing.assert_close(out, expected)
    assert torch.equal(plan.anchor, gridding.anchor[expected_plan.anchor])
    assert plan.shape == expected_plan.shape == compressor.planned_shape((frames, 7, 6))
    torch.testing.assert_close(plan.flatten().apply(tokens), expected)


def test_presets():
    assert STGridPool() == STGridPool(preset="released")
    released = STGridPool()
    assert (released.strides, released.grid_size, released.kernel_size, released.ceil_mode) == ((2, 4, 8), 4, 2, False)
    assert (released.norm_order, released.scale, released.padding, released.stride) == (2.0, 1.0, 0, 2)
    assert STGridPool(preset="paper").strides == (1, 2, 4)


@pytest.mark.parametrize("write", ["replace", "append"])
def test_mosaics_alone_are_pooled_as_llava_does(write):
    """Before bilinear resizing, 27x27 to 14x14, as in the paper's row of PTG alone."""
    tokens = torch.randn(16, 27, 27, 3)
    gridded = PTG(window=8, levels=3, write=write)(tokens).tokens
    expected = Bilinear()(gridded.view(-1, *tokens.shape[1:])).tokens
    compressor = STGridPool(pooling="bilinear", write=write)
    torch.testing.assert_close(compressor(tokens).tokens, expected)
    assert compressor.planned_count((16, 27, 27)) == len(expected)
    assert STGridPool(preset="ablation/ptg").pooling == "bilinear"
    assert torch.equal(
        build_compressor("ptg+bilinear")(tokens).tokens, STGridPool(preset="ablation/ptg")(tokens).tokens
    )


@pytest.mark.parametrize(
    "options", [{"stride": 3}, {"padding": 1}, {"ceil_mode": True}, {"norm_order": 1}, {"scale": 2}]
)
def test_bilinear_pooling_ignores_no_option(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"pooling='bilinear' takes kernel_size alone, got {name}="):
        STGridPool(preset="ablation/ptg", **options)
    assert STGridPool(preset="ablation/ptg", kernel_size=3, stride=3).planned_shape((8, 27, 27)) == (8, 9, 9)


def test_pooling_alone():
    """`ablation/nsp` makes no mosaics, as `nsp` does."""
    tokens = torch.randn(16, 6, 6, 3)
    assert torch.equal(STGridPool(preset="ablation/nsp")(tokens).tokens, NSP()(tokens).tokens)
    assert STGridPool(preset="ablation/nsp").strides == ()
    assert STGridPool(preset="ablation/nsp", window=8, levels=1) == STGridPool(preset=None, window=8, levels=1)


# Of 64 frames of 27x27; windows of 8 to 64 frames make 8, 4, 2 and 1 mosaics, those of 4 to 32 frames 16, 8, 4 and 2.
ABLATIONS = {f"kernel_{size}": (64 * (27 // size) ** 2, {"kernel_size": size}) for size in (1, 2, 3, 4)}
ABLATIONS |= {f"norm_{order}": (10816, {"norm_order": float(order)}) for order in ("1", "2", "inf")}
ABLATIONS |= {
    f"window_{window}_levels_{levels}": (10816, {"window": window, "levels": levels})
    for window in (4, 8)
    for levels in (1, 2, 3, 4)
}
ABLATIONS |= {
    "write_replace": (10816, {}),
    "write_append": ((64 + 14) * 169, {"write": "append"}),
    "write_blend": (10816, {"write": "blend"}),
    "image_gridding": (10816, {"gridding": "images"}),
    "ptg": (64 * 196, {"pooling": "bilinear"}),
    "nsp": (10816, {"strides": ()}),
    "30_percent_fewer": (64 * 13 * 9, {"kernel_size": (2, 3)}),
    "50_percent_fewer": (64 * 9 * 9, {"kernel_size": 3}),
}


def test_every_ablation_changes_one_thing():
    assert presets("st_gridpool") == (*STGridPool.PRESETS, "nvila/30")
    assert sorted(presets("st_gridpool")) == sorted(
        ["released", "paper", "nvila/30", *(f"ablation/{name}" for name in ABLATIONS)]
    )
    for name, (count, options) in ABLATIONS.items():
        method = build_compressor("st_gridpool", preset=f"ablation/{name}")
        assert method.preset == f"ablation/{name}"
        assert method.planned_count((64, 27, 27)) == count
        assert replace(method, preset=None) == replace(STGridPool(**options), preset=None)
    assert presets("average") == ()
    with pytest.raises(ValueError, match="'st_gridpol', did you mean 'st_gridpool'"):
        presets("st_gridpol")


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
@pytest.mark.parametrize("preset", ["released", "paper"])
def test_a_preset_is_named_only_while_every_option_is_its_own(preset, options):
    assert STGridPool(preset=preset).preset == preset
    compressor = STGridPool(preset=preset, **options)
    assert compressor.preset is None
    assert compressor.strides == STGridPool(preset=preset).strides


@pytest.mark.parametrize("options", [{"preset": "papr"}, {"kernel_size": 0}, {"norm_order": -2}, {"window": 3}])
def test_bad_options(options):
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"{name} |{name}=|window of"):
        build_compressor("st_gridpool", **options)
