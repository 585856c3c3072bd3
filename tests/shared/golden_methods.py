"""Golden numbers of methods: what the original code left of the inputs in tests/golden/methods/inputs."""

import json

from safetensors.torch import load_file

CASES = ["s00_blocky", "s01_smooth", "s02_random", "s03_scenes", "s04_blocky", "s05_smooth", "s06_random"]
CASES += ["s07_smooth_T1", "s08_scenes", "s09_blocky", "s10_scenes", "s11_smooth"]
"""The names of the inputs."""


def golden_method(golden, name):
    """Return the variants that a method was run with, and the tensors that came out, by ``case.tag.name``."""
    folder = golden / "methods" / name
    return json.loads((folder / "manifest.json").read_text())["variants"], load_file(folder / f"{name}.safetensors")
