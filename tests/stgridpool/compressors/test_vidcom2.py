"""VidCom2: golden numbers of the released code and of vLLM, counts, and what a loop over tokens gives."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from golden_methods import golden_method
from stgridpool import VidCom2, VideoTokens
from stgridpool.algorithms import frame_blocks
from stgridpool.algorithms.typicality import frame_scales, typicality


@pytest.fixture(scope="module")
def original(golden):
    return golden_method(golden, "vidcom2")


@pytest.fixture(scope="module")
def maps(golden):
    """Function that reads the feature maps (T, H, W, 32) of a case."""

    def read(variant):
        inputs = load_file(golden / "methods" / "inputs" / f"{variant['case']}.safetensors")
        return inputs["x"].float().view(variant["T"], variant["H"], variant["W"], -1)

    return read


def test_equals_the_released_code_and_vllm(original, maps):
    variants, expected = original
    plain = [variant for variant in variants if variant["tag"].startswith("R")]
    assert len(plain) == 36
    for variant in plain:
        name, tokens = f"{variant['case']}.{variant['tag']}", maps(variant)
        area = variant["H"] * variant["W"]
        released = VidCom2(preset="released", retention=variant["R"])(tokens).plan
        assert torch.equal(released.kept(), expected[f"{name}.kept"].long()), name
        counts = torch.bincount(released.kept() // area, minlength=len(tokens))
        assert torch.equal(counts, expected[f"{name}.counts"].long())
        vllm = VidCom2(preset="vllm", pruning_rate=variant["q"])
        assert torch.equal(vllm(tokens).plan.kept(), expected[f"{name}.kept_vllm"].long()), name
        assert vllm.planned_count(tokens.shape[:3]) == variant["total_vllm"]


def test_measures_equal_the_original(original, maps):
    variants, expected = original
    compared = 0
    for variant in variants:
        name = f"{variant['case']}.{variant['tag']}"
        tokens = VideoTokens.of(maps(variant))
        if f"{name}.scales" in expected:
            found = typicality(tokens)
            scales = (variant["R"] * frame_scales(found.of_video, tokens)).clamp_max(1)
            torch.testing.assert_close(scales, expected[f"{name}.scales"], atol=2e-5, rtol=2e-5)
            if f"{name}.channels" in expected:
                channels = found.varies_little.nonzero().flatten()
                assert torch.equal(channels, expected[f"{name}.channels"].long())
            if f"{name}.v_score" in expected:
                compared += 1
                for mine, theirs in ((found.of_video, "v_score"), (found.of_frame, "f_score")):
                    torch.testing.assert_close(mine, expected[f"{name}.{theirs}"].flatten(), atol=2e-5, rtol=1e-4)
    assert compared >= 1


def test_equals_the_port_to_llava_video(original, maps):
    """Newlines aside, which are the last of every 14 tokens there."""
    variants, expected = original
    ports = [variant for variant in variants if variant["tag"].startswith("llava_vid")]
    assert ports
    for variant in ports:
        layout = expected[f"{variant['case']}.{variant['tag']}.kept_with_newlines"].long()
        row, column = layout // 14, layout % 14
        kept = (row * 13 + column)[column < 13]
        plan = VidCom2(preset="released", retention=variant["R"])(maps(variant)).plan
        assert torch.equal(plan.kept(), kept)


def test_counts_equal_vllm(golden):
    rows = json.loads((golden / "methods" / "vidcom2" / "vllm_counts.json").read_text())
    assert len(rows) > 10
    for row in rows:
        method = VidCom2(preset="vllm", pruning_rate=row["q"])
        assert method.planned_count((row["T"], 1, row["tokens_per_frame"])) == row["retained"], row


def by_hand(maps, channels):
    """Typicality token by token in float64: sums over both means."""
    rows = maps.double().flatten(1, 2)[:, :, channels]
    rows = rows / rows.norm(dim=2, keepdim=True).clamp_min(1e-12)
    means = [rows.mean((0, 1)), *rows.mean(1)]
    found = []
    for frame, tokens in enumerate(rows):
        for token in tokens:
            distances = [float((token - mean).square().sum()) for mean in (means[0], means[frame + 1])]
            found.append(sum(math.exp(-d / 2**power) for d in distances for power in range(-2, 3)))
    return torch.tensor(found, dtype=torch.float64).view(len(rows), -1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_corrected_shares_are_in_proportion_to_the_released_ones(dtype):
    """Three of six channels vary little, and the last frame is unlike the others."""
    generator = torch.Generator().manual_seed(3)
    maps = torch.randn(4, 5, 4, 6, generator=generator) * torch.tensor([1.0, 9, 1, 8, 9, 1]) + 4
    maps[3, :, :, 0] = -20.0
    maps = maps.to(dtype)
    variance = maps.float().flatten(0, 2).var(0)
    channels = variance.argsort()[:3].sort().values
    typical = by_hand(maps, channels)
    tokens = VideoTokens.of(maps)
    found = typicality(tokens)
    torch.testing.assert_close((found.of_video + found.of_frame).double().view(4, -1), typical, atol=1e-4, rtol=1e-4)
    method = VidCom2(tokens=33)
    kept = method(maps).plan.kept()
    assert len(kept) == method.planned_count((4, 5, 4)) == 33
    wanted = 33 * frame_scales(found.of_video, tokens) / 4
    counts = torch.bincount(kept // 20, minlength=4)
    assert (counts - wanted).abs().max() < 1
    for frame, count in enumerate(counts.tolist()):
        lowest = typical[frame].argsort(stable=True)[:count].sort().values + 20 * frame
        assert kept[kept // 20 == frame].tolist() == lowest.tolist()


def test_frames_of_different_sizes_equal_frames_alone():
    """A pruned video: means are those of the tokens that are there, and an empty frame gets nothing."""
    maps = torch.randn(4, 2, 3, 8, generator=torch.Generator().manual_seed(1))
    cell = torch.tensor([0, 1, 2, 5, 12, 18, 19, 20, 21, 22, 23])  # frames of 4, 0, 1 and 6 tokens
    tokens = VideoTokens(maps.flatten(0, 2)[cell], (4, 2, 3), cell)
    found = typicality(tokens)
    rows = tokens.features[:, found.varies_little].double()
    rows = rows / rows.norm(dim=1, keepdim=True)
    frame = cell // 6
    means = torch.stack([rows[frame == f].mean(0) if f != 1 else rows.new_zeros(4) for f in range(4)])
    for mine, mean in ((found.of_video, rows.mean(0)), (found.of_frame, means[frame])):
        squared = (rows - mean).square().sum(1)
        expected = torch.stack([(-squared / 2.0**power).exp() for power in range(-2, 3)]).sum(0)
        torch.testing.assert_close(mine.double(), expected, atol=1e-5, rtol=1e-5)
    for preset in ("corrected", "vllm"):
        kept = VidCom2(preset=preset, tokens=7).plan(tokens, {}).kept()
        assert len(kept) == 7
    assert VidCom2(retention=1.0).plan(tokens, {}).kept().tolist() == list(range(11))


@pytest.mark.parametrize("cell", [None, torch.arange(240).roll(5)[:199]])
def test_frames_of_many_blocks_equal_those_of_one(cell, monkeypatch):
    """Forty tokens of a frame in blocks of 16, so that the last is smaller, and six frames four at a time."""
    features = torch.randn(240 if cell is None else len(cell), 10, generator=torch.Generator().manual_seed(0))
    tokens = VideoTokens(features, (6, 5, 8), cell)
    whole = typicality(tokens)
    monkeypatch.setattr(frame_blocks, "_ENTRIES_ON_CPU", 640)
    for one, other in zip(whole, typicality(tokens), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_equal_tokens_the_first_are_kept(dtype):
    """Frames of 7x7 equal tokens: matrix products compute the last rows otherwise, unless there are whole tiles."""
    frame = torch.randn(5, 1, 1, 1152, generator=torch.Generator().manual_seed(1))
    maps = frame.expand(5, 7, 7, 1152).to(dtype)
    tokens = VideoTokens.of(maps)
    found = typicality(tokens)
    for measure in (found.of_video, found.of_frame):
        assert [len(of_one.unique()) for of_one in measure.view(5, 49)] == [1] * 5
    kept = VidCom2(retention=0.5)(maps).plan.kept()
    for number in range(5):
        of_one = kept[kept // 49 == number]
        assert of_one.tolist() == list(range(49 * number, 49 * number + len(of_one)))


@pytest.mark.parametrize("cell", [None, torch.arange(60).roll(7)[:43]])
def test_channels_far_from_zero_are_compared_by_their_own_variance(cell):
    """Means of 3000, where the difference of the mean square and the squared mean has an error of about 1."""
    spread = torch.linspace(0.5, 1.5, 16)
    maps = torch.randn(60, 16, generator=torch.Generator().manual_seed(4)) * spread.flip(0)
    maps[:, ::2] += 3000
    maps[:, 5] = 77.7  # constant
    features = maps if cell is None else maps[cell]
    found = typicality(VideoTokens(features, (5, 3, 4), cell))
    expected = features.double().var(0).argsort()[:8].sort().values
    assert found.varies_little.nonzero().flatten().tolist() == expected.tolist()


def test_budgets_and_bad_options():
    maps = torch.randn(3, 2, 2, 4)
    for preset in ("corrected", "vllm"):
        for count in range(1, 13):
            assert len(VidCom2(preset=preset, tokens=count)(maps).plan) == count
    assert VidCom2(preset="released").planned_count((3, 2, 2)) is None
    assert VidCom2(pruning_rate=0.99)(maps).plan.kept().shape == (3,)
    assert VidCom2() == VidCom2(retention=0.25, preset="corrected")
    with pytest.raises(ValueError, match="pruning_rate must be a number from 0 to 1, got 75"):
        VidCom2(pruning_rate=75)
    with pytest.raises(ValueError, match=r"one way, got \{'tokens': 3, 'pruning_rate'"):
        VidCom2(pruning_rate=0.5, tokens=3)
    with pytest.raises(ValueError, match=r"preset cannot be 'exact'.*corrected"):
        VidCom2(preset="exact")


def test_a_token_of_zeros_has_no_direction():
    features = torch.randn(18, 8, generator=torch.Generator().manual_seed(2))
    features[7] = 0
    found = typicality(VideoTokens.of(features.view(3, 2, 3, 8)))
    rows = F.normalize(features[:, found.varies_little].double(), dim=1)
    means = rows.view(3, 6, -1).mean(1)
    for mine, mean in ((found.of_video, rows.mean(0)), (found.of_frame, means.repeat_interleave(6, 0))):
        squared = (rows - mean).square().sum(1)
        expected = torch.stack([(-squared / 2.0**power).exp() for power in range(-2, 3)]).sum(0)
        torch.testing.assert_close(mine.double(), expected, atol=1e-5, rtol=1e-5)


def test_channels_that_are_not_compared_may_be_of_any_size():
    """Their sums, weighted by the length of the others, are beyond float32."""
    features = torch.randn(10_000, 8, generator=torch.Generator().manual_seed(3)) * 1e-18
    features[:, ::2] = torch.rand(10_000, 4, generator=torch.Generator().manual_seed(4)) * 2.5e17
    found = typicality(VideoTokens.of(features.view(1, 100, 100, 8)))
    assert found.varies_little.tolist() == [False, True] * 4
    rows = features[:, 1::2].double()
    rows /= rows.norm(dim=1, keepdim=True)
    squared = (rows - rows.mean(0)).square().sum(1)
    expected = torch.stack([(-squared / 2.0**power).exp() for power in range(-2, 3)]).sum(0)
    torch.testing.assert_close(found.of_video.double(), expected, atol=1e-4, rtol=1e-4)
