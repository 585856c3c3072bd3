"""Methods are built and counted without torch; what needs torch starts over with it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lmms_eval_stgridpool.health.planning import Planner
from lmms_eval_stgridpool.run import without_torch
from lmms_eval_stgridpool.run.checkpoint_checks import read_checkpoint_settings
from stgridpool.compressors import COMPRESSORS, build_compressor, presets

MINIATURE = str(Path(__file__).resolve().parents[4] / "scripts" / "nano" / "checkpoint")
FRAMES = 8


def plans():
    """Return what every method and preset makes of a video, as text, or the error."""
    planner = Planner.of_settings(read_checkpoint_settings(MINIATURE)[1])
    found = {}
    for name in COMPRESSORS:
        for options in ({}, {"retention": 0.5}, *({"preset": preset} for preset in presets(name))):
            try:
                planned = repr(planner.plan(build_compressor(name, **options), FRAMES))
            except (ValueError, TypeError) as error:
                planned = repr(error)
            except without_torch.TorchNeeded:
                planned = None
            found[f"{name} {options}"] = planned
    return found


def run(code, environment):
    folder = str(Path(__file__).parent)
    command = [sys.executable, "-c", f"import sys; sys.path.append({folder!r}); {code}"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_methods_are_counted_as_with_torch(environment):
    code = (
        "from lmms_eval_stgridpool.run.without_torch import run_without_torch; import json; "
        "run_without_torch(lambda: print(json.dumps(__import__('test_without_torch').plans())), []); "
        "assert 'torch._C' not in sys.modules"
    )
    without, expected = json.loads(run(code, environment)), plans()
    needing = {name for name, planned in without.items() if planned is None}
    # These lay frames out with tensors to count their tokens.
    assert {name.partition(" ")[0] for name in needing} == {"downsample", "dycoke_ttm", "st_gridpool"}
    assert [name for name in needing if name.startswith("st_")] == ["st_gridpool {'preset': 'ablation/write_append'}"]
    assert {name: without[name] for name in expected.keys() - needing} == {
        name: expected[name] for name in expected.keys() - needing
    }


@pytest.mark.parametrize(
    "use",
    [
        "torch.ones(2)",
        "torch.nn.functional.pad",
        "torch.nn.Module()",
        "torch.float32.itemsize",
        "torch.no_grad()(len)('')",
        "torch.no_grad().__enter__()",
    ],
)
def test_what_needs_torch_starts_over(use, environment):
    code = (
        "from lmms_eval_stgridpool.run.without_torch import run_without_torch; "
        f"check = lambda: print(eval({use!r}, {{'torch': __import__('torch')}})); "
        "run_without_torch(check, ['-c', 'import sys; print(sys.argv)', 'word'])"
    )
    assert run(code, environment) == "['-c', 'word']\n"


def test_torch_is_used_where_it_is_loaded():
    def check():
        import torch

        seen.append(torch.ones(2).sum().item())

    seen = []
    without_torch.run_without_torch(check, [])
    assert seen == [2]
