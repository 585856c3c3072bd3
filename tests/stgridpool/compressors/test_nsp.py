"""Norm-based spatial pooling: golden numbers of the original, formulas, edges."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from stgridpool import NSP, Average
from stgridpool.algorithms.token_norm import token_norms


@pytest.fixture(scope="module")
def nsp_golden(golden):
    folder = golden / "stgridpool"
    return json.loads((folder / "nsp_cases.json").read_text()), load_file(folder / "nsp.safetensors")


def case_names():
    floats = [f"b_{tag}" for tag in ("default", "p1", "p3", "p4", "p0.5", "pinf", "temp0.0", "temp0.5", "temp10.0")]
    floats += [
        "a_default",
        "c_default",
        "d_default",
        "b_temp100.0",
        "b_temp-1.0",
        "a_p1",
        "a_temp5",
        "b_k3s3",
        "b_k3s2",
    ]
    floats += ["b_k2s1", "c_k4s4", "b_k1s1", "b_pad1", "c_pad1_p1", "d_pad1"]
    return [*floats, "b_bfloat16", "a_bfloat16", "b_float16", "a_float16"]


def test_every_golden_case_is_listed(nsp_golden):
    assert {case["name"] for case in nsp_golden[0]["cases"]} == set(case_names())


@pytest.mark.parametrize("name", case_names())
def test_equals_the_original(nsp_golden, name):
    cases, tensors = nsp_golden
    case = next(case for case in cases["cases"] if case["name"] == name)
    size = cases["inputs"][case["x"]]
    dtype = getattr(torch, case["dtype"])
    tokens = tensors[case["x"]].view(size["T"], size["H"], size["W"], size["D"]).to(dtype)
    nsp = NSP(case["kernel_size"], case["stride"], case["padding"], norm_order=case["p"], scale=case["temp"])
    out, plan = nsp(tokens)
    expected = tensors[case["y"]]
    assert plan.shape == (size["T"], case["out_H"], case["out_W"])
    assert out.dtype == expected.dtype
    out = out.view(expected.shape)
    if dtype == torch.float32:
        torch.testing.assert_close(out, expected, atol=2e-5, rtol=0)
    else:
        limit = {torch.bfloat16: 0.01, torch.float16: 0.003}[dtype]
        assert (out.float() - expected.float()).norm() < limit * expected.float().norm()


def test_by_hand():
    # Two channels; the norms over sqrt(2) are 1, 3, 0, 0, so the weights are e, e^3, 1, 1 over their sum.
    tokens = torch.tensor([[[[1.0, 1.0], [3.0, -3.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    total = math.e + math.e**3 + 2
    expected = [(math.e + 3 * math.e**3) / total, (math.e - 3 * math.e**3) / total]
    assert NSP()(tokens).tokens.flatten().tolist() == pytest.approx(expected, rel=1e-6)


def test_scale_zero_is_average():
    tokens = torch.randn(3, 7, 9, 4)
    torch.testing.assert_close(NSP(scale=0, ceil_mode=True)(tokens).tokens, Average(ceil_mode=True)(tokens).tokens)


def test_large_scale_takes_the_strongest_token():
    tokens = torch.randn(2, 4, 4, 8)
    windows = tokens.view(2, 2, 2, 2, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, 8)
    strongest = windows[torch.arange(8), windows.norm(dim=-1).argmax(dim=-1)]
    torch.testing.assert_close(NSP(scale=1e9)(tokens).tokens, strongest)


@pytest.mark.parametrize("order", [0.5, 1, 2, 3, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_norms_are_generalised_means(order, dtype):
    tokens = torch.randn(3, 400, 6).to(dtype)
    norms = token_norms(tokens, order)
    wide = tokens.double().abs()
    expected = wide.amax(-1) if math.isinf(order) else wide.pow(order).mean(-1).pow(1 / order)
    assert norms.dtype == torch.float32
    assert norms.shape == (3, 400)
    torch.testing.assert_close(norms, expected.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dtype", "value"), [(torch.float16, 6e4), (torch.bfloat16, 3e38), (torch.float32, 3e38)])
@pytest.mark.parametrize("order", [1, 2, 8, math.inf])
@pytest.mark.parametrize("scale", [1.0, 4.0, -4.0])
def test_norms_beyond_half_precision(dtype, value, order, scale):
    tokens = torch.zeros(1, 2, 2, 1024, dtype=dtype)
    tokens[0, 0, 0] = value
    out, plan = NSP(norm_order=order, scale=scale)(tokens)
    chosen = [1.0, 0.0, 0.0, 0.0] if scale > 0 else [0.0, 1 / 3, 1 / 3, 1 / 3]
    assert plan.rows.weights.tolist() == pytest.approx(chosen)
    assert out.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm_order": 0}, r"norm_order \(or inf\) must be a number from 0.25 to 64, got 0"),
        ({"norm_order": -1}, "got -1"),
        ({"norm_order": math.nan}, "norm_order .*, got nan"),
        ({"scale": math.inf}, r"scale must be a number from -1e\+12 to 1e\+12, got inf"),
        ({"norm_order": "two"}, "two"),
        ({"norm_order": 1e300}, "got 1e"),  # powers of channels would overflow
        ({"norm_order": 1e-300}, "got 1e-300"),
        ({"norm_order": True}, "got True"),
        ({"scale": "1"}, "got '1'"),
        ({"ceil_mode": "true"}, "ceil_mode must be True or False"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        NSP(**options)
