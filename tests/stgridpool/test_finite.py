"""NaN and infinity are noticed where they arise, in each row by itself, and nothing more waits for the device."""

import math
import warnings

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GenerationMixin

from stgridpool.decoder.session import VideoSession
from stgridpool.finite import LogitsWatch, NonFiniteError, StageCheck, all_finite, fetch, first_failure, flags_of

WIDTH, END = 32, 1
GREEDY = {"do_sample": False, "max_new_tokens": 6}
SAMPLED = {"do_sample": True, "max_new_tokens": 6, "top_p": 0.9, "top_k": 5}
SEARCHED = {"do_sample": False, "max_new_tokens": 6, "num_beams": 3}


@pytest.fixture
def model(make_decoder):
    return make_decoder(num_layers=2, eos_token_id=END)


@pytest.fixture
def prompts():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(9, WIDTH, generator=generator), [torch.randn(n, WIDTH, generator=generator) for n in (4, 2, 5)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_not_finite(dtype, value):
    values = torch.randn(3, 5, 7).to(dtype)
    values[0, 0, 0], values[2, 4, 6] = torch.finfo(dtype).max, torch.finfo(dtype).min
    assert all_finite(values)
    assert all_finite(values.transpose(0, 2)[1:])
    values[1, 2, 3] = value
    assert not all_finite(values)
    assert not all_finite(values.transpose(0, 2))


def test_nothing_is_finite():
    assert all_finite(torch.empty(0, 4))


def test_tensors_come_to_the_host_in_one_copy(monkeypatch):
    copies, copy = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: copies.append(tensor) or copy(tensor))
    ids, flags, none = fetch(torch.tensor([[3, 2**40], [5, 6]]), torch.tensor([True, False]), torch.ones(0).bool())
    assert ids.tolist() == [[3, 2**40], [5, 6]]
    assert flags.tolist() == [1, 0]
    assert none.shape == (0,)
    assert len(copies) == 1


def test_the_first_stage_that_failed_is_named_with_its_dtype():
    bad, good = torch.tensor([1.0, math.nan]), torch.ones(2)
    checks = [StageCheck.of("vision tower", good), StageCheck.of("projector", bad.half()), StageCheck.of("end", bad)]
    flags = flags_of(checks, torch.device("cpu"))
    assert flags.tolist() == [True, False, False]
    error = first_failure(checks, flags)
    assert str(error) == (
        "NaN or infinity in the projector with torch_dtype=float16: use torch_dtype=bfloat16 or float32; if that does "
        "not help, the weights are damaged"
    )
    assert str(first_failure(checks[2:], flags[2:])).endswith("end with torch_dtype=float32: the weights are damaged")
    assert first_failure(checks[:1], flags[:1]) is None
    assert first_failure([], flags_of([], torch.device("cpu"))) is None


@pytest.mark.parametrize("options", [GREEDY, SAMPLED, SEARCHED], ids=str)
def test_a_row_that_is_not_finite_fails_alone_and_at_once(model, prompts, options):
    prefix, suffixes = prompts
    session = VideoSession(model, prefix)
    torch.manual_seed(3)
    clean = session.generate(suffixes, **options)
    suffixes[1] = suffixes[1].clone().fill_(math.nan)
    watch = LogitsWatch(model)
    torch.manual_seed(3)
    found = session.generate(suffixes, watch=watch, **options)
    flags = watch.flags().view(len(watch.flags()), 3, -1)
    assert flags[:, [0, 2]].all()
    assert not flags[0, 1].any()
    assert found[1, 0] == END
    if options is not SAMPLED:
        for row in (0, 2):
            assert found[row].tolist() == clean[row].tolist()
    with pytest.raises(NonFiniteError, match="in the language model with torch_dtype=float32"):
        session.generate(suffixes, **options)
    assert not model._forward_hooks


def test_a_prefix_that_is_not_finite_is_named(model, prompts):
    prefix, suffixes = prompts
    session = VideoSession(model, torch.cat([prefix, torch.full((1, WIDTH), math.inf)]))
    with pytest.raises(NonFiniteError, match="in the embeddings of the prefix"):
        session.generate(suffixes, **GREEDY)


def test_logits_that_overflow_float16(make_decoder, prompts):
    prefix, suffixes = prompts
    model = make_decoder(num_layers=2).half()
    VideoSession(model, prefix.half()).generate([suffixes[0].half()], **GREEDY)
    with torch.no_grad():
        model.lm_head.weight.mul_(60000)
    assert model.lm_head.weight.isfinite().all()
    with pytest.raises(NonFiniteError, match="language model with torch_dtype=float16: use torch_dtype=bfloat16"):
        VideoSession(model, prefix.half()).generate([suffixes[0].half()], **GREEDY)


@pytest.mark.parametrize("options", [GREEDY, SAMPLED, SEARCHED], ids=str)
def test_what_processors_mask_is_no_failure(model, prompts, options):
    prefix, suffixes = prompts
    masked = {"suppress_tokens": [5, 6], "bad_words_ids": [[7]], "min_new_tokens": 4}
    VideoSession(model, prefix).generate(suffixes, **options, **masked)


def test_a_model_without_an_end_token(make_decoder, prompts):
    prefix, suffixes = prompts
    session = VideoSession(make_decoder(num_layers=1), prefix)
    with pytest.raises(NonFiniteError):
        session.generate([suffixes[0] * math.nan], **GREEDY)


def test_watching_waits_for_nothing(model, prompts):
    """On the CPU, reading a number stands for waiting, and so does assigning one, which a GPU copies from the host."""
    assert counting_reads(model, prompts, LogitsWatch(model)) == counting_reads(model, prompts, None)


def counting_reads(model, prompts, watch):
    reads = []
    waiting = torch.ops.aten._local_scalar_dense, torch.ops.aten.copy_

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            reads.append(function._overloadpacket in waiting)
            return function(*args, **kwargs or {})

    prefix, suffixes = prompts
    embeds = torch.cat([prefix, suffixes[0]])[None]
    with Counting():
        if watch is None:
            GenerationMixin.generate(model, inputs_embeds=embeds, **GREEDY)
        else:
            with watch.attached():
                GenerationMixin.generate(model, inputs_embeds=embeds, **GREEDY)
            watch.flags()
    return sum(reads)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_watching_waits_for_nothing_on_a_gpu(model, prompts):
    model = model.cuda()
    prefix, suffixes = prompts
    prompts = prefix.cuda(), [suffix.cuda() for suffix in suffixes]
    counts = []
    counting_reads(model, prompts, None)
    for watch in (None, LogitsWatch(model)):
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as waits:
                warnings.simplefilter("always")
                counting_reads(model, prompts, watch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        counts.append(sum("called a synchronizing" in str(wait.message) for wait in waits))
    assert counts[0] == counts[1]
