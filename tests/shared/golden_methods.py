"""Golden numbers of methods: what the original code left of the inputs in tests/golden/methods/inputs."""

import json

import torch
from safetensors.torch import load_file

CASES = ["s00_blocky", "s01_smooth", "s02_random", "s03_scenes", "s04_blocky", "s05_smooth", "s06_random"]
CASES += ["s07_smooth_T1", "s08_scenes", "s09_blocky", "s10_scenes", "s11_smooth"]
"""The names of the inputs."""


def golden_method(golden, name):
    """Return the variants that a method was run with, and the tensors that came out, by ``case.tag.name``."""
    folder = golden / "methods" / name
    return json.loads((folder / "manifest.json").read_text())["variants"], load_file(folder / f"{name}.safetensors")


def runs_of_case(golden, variants, case):
    """Yield the runs on an input: ``case.tag``, the variant, the feature maps (T, H, W, D) and all inputs."""
    inputs = load_file(golden / "methods" / "inputs" / f"{case}.safetensors")
    for variant in (variant for variant in variants if variant["case"] == case):
        maps = inputs["x"].float().view(variant["T"], variant["H"], variant["W"], -1)
        yield f"{case}.{variant['tag']}", variant, maps, inputs


def prints(rows):
    """Return the sum of each row (..., D), and the sum weighted by 0, 1 / D, 2 / D, ...: (..., 2)."""
    return torch.stack([rows.sum(-1), rows @ (torch.arange(rows.shape[-1]) / rows.shape[-1])], -1)


def check_features(out, tensors, name, has_features, order=slice(None)):
    """Compare tokens (N, D) with those of the run ``name``, taken in `order`: their prints, and all where stored."""
    torch.testing.assert_close(prints(out), tensors[f"{name}.feat_fp"][order], atol=2e-3, rtol=0)
    if has_features:
        torch.testing.assert_close(out, tensors[f"{name}.features"][order], atol=2e-4, rtol=0)
