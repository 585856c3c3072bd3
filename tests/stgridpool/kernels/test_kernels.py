"""The kernels: when they are chosen, that they give what they must (`kernel_cases.py`), and that they compile."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from stgridpool import NSP, STGridPool, VideoTokens, kernels

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture
def switched_on(monkeypatch):
    monkeypatch.setitem(kernels._STATE, "on", True)


CASES = Path(__file__).parent
# --noconftest: nothing in them is needed, and they import for seconds
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest")


INTERPRETED = f"""
import sys
for name in [*sys.modules]:
    if name.partition(".")[0] == "triton" and not name.startswith("triton._C"):
        del sys.modules[name]
import pytest
sys.exit(pytest.main([*{PYTEST[2:]}, {str(CASES / "kernel_cases.py")!r}]))
"""
"""Imports triton again before it runs the cases: triton chooses its interpreter when it is imported."""


@pytest.mark.slow
def test_through_the_interpreter(run_python):
    pytest.importorskip("triton")
    run = run_python("-c", INTERPRETED, TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout


@pytest.mark.slow
def test_compiling_for_a_device_that_is_not_there(run_python, tmp_path):
    pytest.importorskip("triton")
    run = run_python(*PYTEST, CASES / "compiled_cases.py", TRITON_CACHE_DIR=str(tmp_path), CUDA_VISIBLE_DEVICES="")
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.gpu
@needs_gpu
def test_on_the_device():
    """A forked process cannot use the device."""
    command = [sys.executable, *PYTEST, str(CASES / "kernel_cases.py")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_they_are_off_until_they_are_switched_on(monkeypatch):
    monkeypatch.setattr(kernels, "_has_triton", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    tokens = SimpleNamespace(dtype=torch.bfloat16, is_cuda=True, requires_grad=False)
    assert not kernels.can_run(tokens)
    kernels.switch_on("cuda:1")
    assert kernels.can_run(tokens)
    kernels.switch_off()
    assert not kernels.can_run(tokens)


@pytest.mark.parametrize(
    ("device", "has_gpu", "has_triton"), [("cpu", True, True), ("cuda", False, True), ("cuda", True, False)]
)
def test_they_are_not_switched_on_where_they_cannot_run(device, has_gpu, has_triton, monkeypatch):
    monkeypatch.setattr(kernels, "_has_triton", lambda: has_triton)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    with pytest.raises(ValueError, match=f"need an NVIDIA GPU and the package triton, got device {device}"):
        kernels.switch_on(device)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"dtype": torch.float16}, True),
        ({"dtype": torch.float32}, True),
        ({"dtype": torch.float64}, False),
        ({"is_cuda": False}, False),
        ({"requires_grad": True}, False),
    ],
    ids=str,
)
def test_when_they_are_chosen(changes, expected, switched_on, monkeypatch):
    monkeypatch.setattr(kernels, "_has_triton", lambda: True)
    tokens = SimpleNamespace(**{"dtype": torch.bfloat16, "is_cuda": True, "requires_grad": False, **changes})
    assert kernels.can_run(tokens) is expected
    with torch.no_grad():
        assert kernels.can_run(tokens) is (expected or tokens.requires_grad)
    monkeypatch.setattr(kernels, "_has_triton", lambda: False)
    assert not kernels.can_run(tokens)


def test_learned_weights_want_gradients(switched_on, monkeypatch):
    monkeypatch.setattr(kernels, "_has_triton", lambda: True)
    tokens = SimpleNamespace(dtype=torch.bfloat16, is_cuda=True, requires_grad=False)
    assert not kernels.can_run(tokens, torch.ones(1, requires_grad=True))


@pytest.mark.parametrize(
    ("window", "width", "fits"),
    [(4, 3584, True), (4, 8192, True), (4, 8193, False), (8, 4096, True), (9, 3584, False), (1, 1, True)],
)
def test_which_windows_fit(window, width, fits):
    # at most 32768 numbers, both sides rounded up to powers of two
    assert kernels.window_fits(window, width) is fits


IN_A_FORK_THAT_CANNOT_IMPORT_TRITON = """
import sys
for name in [*sys.modules]:
    if name.split(".")[0] in ("stgridpool", "triton"):
        del sys.modules[name]
sys.modules["triton"] = None
import torch
from stgridpool import STGridPool
print(STGridPool()(torch.randn(8, 4, 4, 2).bfloat16()).tokens.shape[0])
"""


def test_this_package_imports_no_triton_on_the_cpu(run_python):
    """Only its own modules are imported again; torch, which may import triton itself, is already there."""
    run = run_python("-c", IN_A_FORK_THAT_CANNOT_IMPORT_TRITON)
    assert run.stdout.strip() == "32", run.stderr


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("method", [NSP(), NSP(padding=1), STGridPool()], ids=str)
def test_nothing_waits_for_the_device(method, switched_on):
    tokens = torch.randn(16, 9, 9, 64, device="cuda", dtype=torch.bfloat16)
    method.plan(VideoTokens.of(tokens), {}).apply(tokens)
    method(tokens)  # layouts and kernels of these sizes are made now
    torch.cuda.set_sync_debug_mode("error")
    try:
        method.plan(VideoTokens.of(tokens), {}).apply(tokens)
        method(tokens)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_tokens_on_another_device(switched_on):
    tokens = torch.randn(8, 6, 6, 64)
    found = STGridPool()(tokens.to("cuda:1"))
    assert found.tokens.device.index == 1
    torch.testing.assert_close(found.tokens.cpu(), STGridPool()(tokens).tokens)
