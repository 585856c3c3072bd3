"""VideoPruning: vLLM's formulas over a grid, masks against its golden numbers, and what a server's counts tell."""

import json
import re
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stgridpool import COMPRESSORS
from stgridpool.serving import (
    NOT_PRUNED,
    NOTHING_TO_PRUNE,
    PRUNED,
    UNEXPECTED,
    ServedVideo,
    VideoPruning,
    pruning_happened,
)

SIZES = (1, 2, 3, 7, 49, 169, 196, 300)
FRAMES = (1, 2, 3, 5, 8, 32, 64, 127)
RATES = (0, 0.1, 0.25, 0.3, 0.5, 0.7, 0.75, 0.8, 0.9, 0.95, 0.99, 0.999, 1 / 3)


def evs_formula(per_frame, frames, q):
    return max(per_frame, int(per_frame * frames * (1 - q)))


def vidcom2_formula(per_frame, frames, q):
    total = per_frame * frames
    return max(frames, min(int(total * (1.0 - q)), total))


@pytest.mark.parametrize(
    ("method", "formula"), [("evs", evs_formula), ("vidcom2", vidcom2_formula), ("divprune", vidcom2_formula)]
)
def test_counts_equal_the_formulas_of_vllm(method, formula):
    pruning = VideoPruning(method)
    for size, frames, rate in product(SIZES, FRAMES, RATES):
        expected = formula(size, frames, rate)
        assert pruning.compute_retained_tokens_count(size, frames, rate) == expected, (size, frames, rate)
    assert pruning.compute_retained_tokens_count(300, 1, 0.9) == {"evs": 300}.get(method, 29)  # 30 in exact arithmetic


@pytest.mark.parametrize("method", ["evs", "vidcom2", "divprune", "norm_topk", "random", "stride"])
def test_masks_keep_as_many_tokens_as_counted(method):
    pruning = VideoPruning(method)
    for (frames, height, width), merge, rate in product([(1, 4, 6), (5, 4, 7), (8, 6, 6)], (1, 2), (0, 0.3, 0.9, 0.99)):
        per_frame = (height // merge) * (width // merge)
        embeds = torch.randn(frames * per_frame, 16, generator=torch.Generator().manual_seed(frames))
        mask = pruning.compute_retention_mask(embeds, torch.tensor([frames, height, width]), merge, rate)
        assert mask.dtype == torch.bool
        assert mask.shape == (frames * per_frame,)
        assert int(mask.sum()) == pruning.compute_retained_tokens_count(per_frame, frames, rate)


@pytest.mark.parametrize(("method", "options"), [("evs", {}), ("vidcom2", {"preset": "vllm"})])
def test_masks_equal_vllm(golden, method, options):
    folder = golden / "methods"
    variants = json.loads((folder / method / "manifest.json").read_text())["variants"]
    expected = load_file(folder / method / f"{method}.safetensors")
    pruning, compared = VideoPruning(method, options), 0
    for variant in variants:
        name = f"{variant['case']}.{variant['tag']}"
        kept = expected.get(f"{name}.{'kept' if method == 'evs' else 'kept_vllm'}")
        if kept is None:
            continue
        embeds = load_file(folder / "inputs" / f"{variant['case']}.safetensors")["x"].float().flatten(0, -2)
        size = (variant["T"], 2 * variant["H"], 2 * variant["W"])  # before merging 2x2 patches
        mask = pruning.compute_retention_mask(embeds, size, 2, variant["q"])
        assert torch.equal(mask.nonzero().flatten(), kept.long()), name
        compared += 1
    assert compared > 20


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("tome", "tome merges tokens, which a mask cannot express: give the engine precomputed embeddings"),
        ("ts_llava", "ts_llava merges tokens"),
        ("average", "average has no budget of tokens"),
        ("fastervlm", "fastervlm needs AttentionReceived.*: a serving engine passes only the tokens"),
        ("evz", "there is no compressor 'evz'"),
    ],
)
def test_refuses_methods_that_no_mask_can_express(method, message):
    with pytest.raises(ValueError, match=message):
        VideoPruning(method)


def test_the_page_names_the_methods_that_fit():
    page = (Path(__file__).resolve().parents[2] / "docs" / "serving.md").read_text()
    named = re.search(r"these two functions: (.*?)\.", page, flags=re.DOTALL).group(1)
    assert set(re.findall(r"`(\w+)`", named)) == {name for name in COMPRESSORS if fits(name)}


def fits(method):
    """Whether vLLM's interface can run the method with its default options."""
    try:
        VideoPruning(method)
    except ValueError:
        return False
    return True


def test_refuses_a_count_that_is_known_only_afterwards():
    with pytest.raises(ValueError, match="cannot tell how many tokens it keeps: choose another preset"):
        VideoPruning("vidcom2", {"preset": "released"})


def test_refuses_wrong_arguments():
    pruning = VideoPruning()
    with pytest.raises(ValueError, match="q must be below 1"):
        pruning.compute_retained_tokens_count(4, 2, 1)
    with pytest.raises(ValueError, match="q must be a number from 0 to 1, got 75"):
        pruning.compute_retained_tokens_count(4, 2, 75)
    with pytest.raises(ValueError, match="num_frames must be a whole number from 1"):
        pruning.compute_retained_tokens_count(4, 0, 0.5)
    with pytest.raises(ValueError, match=r"has 12 tokens after merging 2x2 patches, got embeddings of shape \(48, 3\)"):
        pruning.compute_retention_mask(torch.ones(48, 3), (3, 4, 4), 2, 0.5)
    with pytest.raises(ValueError, match="spatial_merge_size must be a whole number from 1 to 4, got 5"):
        pruning.compute_retention_mask(torch.ones(48, 3), (3, 4, 4), 5, 0.5)


# 10 frames of 16 tokens and 20 others: 160 tokens dense, 80 at q = 0.5, and at least 16 (evs) or 10 (vidcom2).
@pytest.mark.parametrize(
    ("prompt_tokens", "q", "method", "verdict"),
    [
        (100, 0.5, "evs", PRUNED),
        (180, 0.5, "evs", NOT_PRUNED),
        (101, 0.5, "evs", UNEXPECTED),
        (180, 0, "evs", NOTHING_TO_PRUNE),
        (36, 0.99, "evs", PRUNED),
        (30, 0.99, "evs", UNEXPECTED),
        (30, 0.99, "vidcom2", PRUNED),
        (15, 0.5, "evs", UNEXPECTED),  # fewer than the others alone
    ],
)
def test_notices_a_server_that_does_not_prune(prompt_tokens, q, method, verdict):
    assert pruning_happened(ServedVideo(prompt_tokens, 20, 16, 10), q, VideoPruning(method)) == verdict


def test_one_frame_proves_nothing_with_evs():
    assert pruning_happened(ServedVideo(36, 20, 16, 1), 0.9, VideoPruning("evs")) == NOTHING_TO_PRUNE
    assert pruning_happened(ServedVideo(36, 20, 16, 1), 0.9, VideoPruning("vidcom2")) == NOT_PRUNED


def test_refuses_counts_that_cannot_be():
    with pytest.raises(ValueError, match="prompt_tokens must be a whole number from 1"):
        ServedVideo(0, 0, 16, 10)
