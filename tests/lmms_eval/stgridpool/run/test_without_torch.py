"""Methods are built and counted without torch; what needs torch starts over with it."""

import json
import os
import subprocess
import sys
from pathlib import Path

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


def run(code, environment, *folders):
    path = os.pathsep.join(map(str, (*folders, Path(__file__).parent, environment["PYTHONPATH"])))
    command = [sys.executable, "-c", f"from lmms_eval_stgridpool.run import without_torch\n{code}"]
    return subprocess.run(command, env=environment | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)


def test_methods_are_counted_as_with_torch(environment):
    code = """
import json, sys
def check():
    print(json.dumps(__import__("test_without_torch").plans()))
    assert "torch._C" not in sys.modules
without_torch.run_without_torch(check)
"""
    without, expected = json.loads(run(code, environment).stdout), plans()
    needing = {name for name, planned in without.items() if planned is None}
    # These lay frames out with tensors to count their tokens.
    assert {name.partition(" ")[0] for name in needing} == {"downsample", "dycoke_ttm", "st_gridpool"}
    assert [name for name in needing if name.startswith("st_")] == ["st_gridpool {'preset': 'ablation/write_append'}"]
    assert {name: without[name] for name in expected.keys() - needing} == {
        name: expected[name] for name in expected.keys() - needing
    }


USES = (
    "torch.ones(2)",
    "torch.nn.functional.pad",
    "torch.nn.Module()",
    "torch.float32.itemsize",
    "torch.no_grad()(len)('')",
    "torch.no_grad().__enter__()",
    "torch.__version__",
    "__import__('torch.utils.checkpoint')",
)


def test_nothing_that_computes_can_be_had_without_torch(environment):
    code = f"""
without_torch._stand_in()
import torch
print([without_torch._status_of(lambda: eval(use)) == without_torch._NEEDS_TORCH for use in {USES}])
"""
    assert run(code, environment).stdout == f"{[True] * len(USES)}\n"


ELSEWHERE = """
from dataclasses import dataclass
import torch
from stgridpool import Bilinear

flatten = torch.Tensor.flatten

@dataclass(frozen=True)
class Elsewhere(Bilinear):
    pass
"""


def test_a_method_from_elsewhere_is_imported_with_torch(environment, tmp_path):
    (tmp_path / "with_tensors.py").write_text(ELSEWHERE)
    code = """
without_torch._stand_in()
from stgridpool import build_compressor
print(without_torch._status_of(lambda: build_compressor("with_tensors:Elsewhere")) == without_torch._NEEDS_TORCH)
"""
    assert run(code, environment, tmp_path).stdout == "True\n"


def test_a_check_that_needs_torch_starts_over_with_it(environment, tmp_path):
    (tmp_path / "torch.py").write_text("ones = 'of torch itself'\n")
    code = """
def check():
    import torch
    print(torch.ones)
print("before")
without_torch.run_without_torch(check)
print("after")
"""
    assert run(code, environment, tmp_path).stdout == "before\nof torch itself\nafter\n"


def test_a_check_that_fails_ends_the_process_with_its_own_last_line(environment):
    code = """
def check():
    raise SystemExit("the cause")
without_torch.run_without_torch(check)
print("after")
"""
    failed = run(code, environment)
    assert (failed.returncode, failed.stdout, failed.stderr) == (1, "", "the cause\n")


def test_ctrl_c_during_a_check_is_one_line(environment):
    """A terminal sends it to both processes."""
    code = """
import os, signal, threading
from lmms_eval_stgridpool.cli.checking import check_first
def check():
    os.kill(os.getppid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait()
check_first("sweep.py", check)
"""
    ended = run(code, environment)
    assert (ended.returncode, ended.stdout) == (130, "")
    assert ended.stderr == "\nsweep.py: stopped before anything was loaded\n"


def test_torch_is_used_where_it_is_loaded():
    def check():
        import torch

        seen.append(torch.ones(2).sum().item())

    seen = []
    without_torch.run_without_torch(check)
    assert seen == [2]
