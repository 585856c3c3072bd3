"""At least half of the bandwidth of a copy: bytes read once plus bytes written once, over the time of the device.

Calls are captured as graphs and replayed, so that gaps between launches, in which a whole model keeps the device busy
with other work, do not count.
"""

from functools import partial

import pytest
import torch

from stgridpool import NSP, Average, STGridPool, VideoTokens, kernels

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.fixture(scope="module")
def tokens():
    """64 frames as LLaVA-Video-7B has them, 334 MB: far more than any cache."""
    return torch.randn(64, 27, 27, 3584, device="cuda", dtype=torch.bfloat16)


@pytest.fixture(autouse=True)
def _switched_on(monkeypatch):
    monkeypatch.setitem(kernels._STATE, "on", True)


def milliseconds(call) -> float:
    testing = pytest.importorskip("triton.testing")
    return testing.do_bench_cudagraph(call, rep=100, return_mode="median")


def share_of_copy(call, tokens: torch.Tensor, written: int) -> float:
    """The rate of `call`, which reads `tokens` and writes so many numbers of their size, over that of copying them."""
    copied = torch.empty_like(tokens)
    copy = 2 * tokens.numel() / milliseconds(partial(copied.copy_, tokens))
    return (tokens.numel() + written) / milliseconds(call) / copy


@pytest.mark.parametrize("method", [Average(), NSP(), STGridPool()], ids=lambda method: type(method).__name__)
@torch.inference_mode()
def test_apply(method, tokens):
    """With the mosaics at hand, which stand for as many rows of the input."""
    video = VideoTokens.of(tokens)
    plan = method.plan(video, {})
    out = plan.apply(video.features)
    assert share_of_copy(partial(plan.apply, video.features), tokens, out.numel()) >= 0.5


@torch.inference_mode()
def test_norm_weights(tokens):
    assert share_of_copy(partial(NSP().plan, VideoTokens.of(tokens), {}), tokens, 0) >= 0.5


@torch.inference_mode()
def test_norm_pooling_as_a_whole(tokens):
    assert share_of_copy(partial(NSP(), tokens), tokens, NSP()(tokens).tokens.numel()) >= 0.5


@torch.inference_mode()
def test_the_kernel_is_no_slower_than_embedding_bag(tokens, monkeypatch):
    plan = Average()(tokens).plan
    kernel = milliseconds(partial(plan.apply, tokens))
    monkeypatch.setattr(kernels, "can_run", lambda *tensors: False)
    assert kernel <= milliseconds(partial(plan.apply, tokens))
