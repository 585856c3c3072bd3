"""Pyramid temporal gridding: golden numbers and index tables of the original, options, edges."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from stgridpool import PTG, VideoTokens
from stgridpool.frames.mosaics import Level, grid_layout, mosaic, rewrite, sampled_frames
from stgridpool.rows import Rows


@pytest.fixture(scope="module")
def tables(golden):
    return json.loads((golden / "stgridpool" / "index_tables.json").read_text())


def test_sampled_frames_equal_the_original(tables):
    for stride, by_length in tables["level_frame_indices"].items():
        for num_frames, frames in by_length.items():
            assert sampled_frames(int(num_frames), int(stride)) == frames


def test_the_case_where_exact_arithmetic_differs():
    assert 27 in sampled_frames(57, 2)
    assert 28 not in sampled_frames(57, 2)


def test_grid_layout_equals_the_original(tables):
    for size, layout in tables["best_grid_rows_cols"].items():
        assert list(grid_layout(int(size))) == layout


def test_mosaics_equal_the_original(golden):
    folder = golden / "stgridpool"
    tensors = load_file(folder / "grid_image.safetensors")
    cases = json.loads((folder / "grid_image_cases.json").read_text())
    names = [(f"frames_n{case['n']}_K{case['K']}", f"grid_n{case['n']}_K{case['K']}") for case in cases]
    assert {name for pair in names for name in pair} <= set(tensors)
    rest = sorted(set(tensors) - {name for pair in names for name in pair})
    for source, made in [*names, *((rest[i], rest[i + 1]) for i in range(0, len(rest), 2))]:
        frames, expected = tensors[source], tensors[made]  # (K, C, H, W), (C, H, W)
        rows = mosaic(tuple(expected.shape[1:]), len(frames))
        tiled = rows.draw([frames.permute(0, 2, 3, 1).reshape(-1, expected.shape[0])])
        torch.testing.assert_close(tiled.view(*expected.shape[1:], -1).permute(2, 0, 1), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("size", "tiles"), [(4, 4), (9, 3)])
def test_a_mosaic_is_tiles_resized_by_area(size, tiles):
    frames = torch.randn(size, 1, 6, 12)
    small = F.interpolate(frames, size=(6 // grid_layout(size)[0], 12 // grid_layout(size)[1]), mode="area")
    rows = mosaic((6, 12), size)
    tiled = rows.draw([frames.reshape(-1, 1)]).view(6, 12)
    torch.testing.assert_close(tiled[: small.shape[2], : small.shape[3]], small[0, 0])
    torch.testing.assert_close(tiled[-small.shape[2] :, -small.shape[3] :], small[-1, 0])
    assert isinstance(rows, Rows)


def test_writes_equal_the_original(tables):
    """With frames of one token a mosaic is the last frame that fits, so what is written can be followed exactly."""
    levels = (Level(4, 2), Level(4, 4), Level(4, 8))
    for num_frames, trace in tables["released_update_trace"].items():
        rewritten = rewrite((int(num_frames), 1, 1), levels)
        if not trace:
            assert rewritten is None
            continue
        slots = rewritten.slots.tolist()
        assert [frame for frame, slot in enumerate(slots) if slot >= 0] == sorted({w["target"] for w in trace})
        by_level = [[w["target"] for w in trace if w["level"] == level] for level in range(3)]
        assert [len(rows) for rows in rewritten.made] == [len(targets) for targets in by_level if targets]
        written = [target for targets in by_level for target in targets]  # the made frames are counted in this order
        last = {target: order for order, target in enumerate(written)}
        assert {frame: slot for frame, slot in enumerate(slots) if slot >= 0} == last


def ptg_cases(golden_folder):
    return json.loads((golden_folder / "stgridpool" / "ptg_cases.json").read_text())


def test_equals_the_original(golden):
    tensors = load_file(golden / "stgridpool" / "ptg.safetensors")
    cases = ptg_cases(golden)
    assert len(cases) == 43
    for case in cases:
        dtype = getattr(torch, case["dtype"])
        tokens = tensors[case["x"]][: case["T"]].view(case["T"], case["H"], case["W"], -1).to(dtype)
        pairs = list(zip(case["grid_size_list"], case["grid_freq_list"], strict=False))
        ptg = PTG(strides=tuple(stride for _, stride in pairs), grid_size=tuple(size for size, _ in pairs))
        gridded = ptg(tokens).tokens.view(tokens.shape)
        changed = [frame for frame in range(case["T"]) if not torch.equal(gridded[frame], tokens[frame])]
        assert changed == case["changed_frames"], case["name"]
        if changed:
            made, expected = gridded[changed].flatten(), tensors[case["ptg"]].flatten()
            tolerance = 2e-5 if dtype == torch.float32 else 2e-2
            torch.testing.assert_close(made, expected, atol=tolerance, rtol=tolerance, msg=case["name"])


def test_work_grows_with_the_frames_rewritten():
    rewritten = rewrite((64, 27, 27), (Level(4, 2), Level(4, 4), Level(4, 8)))
    assert (rewritten.slots >= 0).nonzero().flatten().tolist() == [7, 15, 23, 31, 39, 47, 55, 63]
    assert [len(rows) / 729 for rows in rewritten.made] == [8, 4, 2]
    plan = PTG(strides=(2, 4, 8))(torch.zeros(64, 27, 27, 1)).plan
    assert plan.rows.sources.numel() == 64 * 729
    assert (plan.rows.sources < plan.num_sources).sum() == 56 * 729
    assert [len(rows) / 729 for rows in plan.made] == [8, 4, 2]


def test_the_two_forms_are_one():
    assert PTG() == PTG(window=8, levels=3) == PTG(strides=(2, 4, 8))
    assert PTG(window=4, levels=3) == PTG(strides=(1, 2, 4), grid_size=4)
    assert PTG(window=12, levels=2, grid_size=6) == PTG(strides=(2, 4), grid_size=6)
    assert PTG(window=8, levels=2, grid_size=(4, 2)).strides == (2, 8)


@pytest.mark.parametrize(
    ("write", "expected", "places"),
    [
        ("replace", [0, 0, 0, 1, 2, 2, 0.5, 2.5], [0, 1, 2, 3]),  # level 2 sees the mosaics (0, 1) and (2, 3)
        ("append", [0, 0, 1, 1, 0, 1, 2, 2, 3, 3, 2, 3, 1, 3], [0, 1, 1, 2, 3, 3, 3]),  # and here the frames 1 and 3
        ("blend", [0, 0, 0.5, 1, 2, 2, 1.625, 2.875], [0, 1, 2, 3]),  # (0.5, 1) and (2.5, 3), so (0.75, 2.75)
    ],
)
def test_ways_to_write_by_hand(write, expected, places):
    """Frame t has two rows of one token, t and t; a mosaic has the mean of one frame above that of the other."""
    tokens = torch.arange(4.0).view(4, 1, 1, 1).repeat(1, 2, 1, 1)
    ptg = PTG(strides=(1, 2), grid_size=2, write=write)
    out, plan = ptg(tokens)
    assert out.flatten().tolist() == expected
    assert plan.shape == ptg.planned_shape((4, 2, 1)) == (len(places), 2, 1)
    assert (plan.anchor[::2] // 2).tolist() == places
    assert ptg(tokens[:1]).plan.shape == ptg.planned_shape((1, 2, 1)) == (1, 2, 1)
    timed = replace(VideoTokens.of(tokens), times=torch.tensor([0.0, 2.5, 5.0, 7.5])).through(plan)
    assert timed.times.tolist() == [2.5 * place for place in places]


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_too_short_a_video_is_left_as_it_is(frames):
    tokens = torch.randn(frames, 3, 3, 2)
    out, plan = PTG(window=8, levels=3)(tokens)
    assert torch.equal(out, tokens.flatten(0, 2))
    assert plan.made == ()


@pytest.mark.parametrize(
    ("window", "grid_size", "frames"),
    [
        (6, 4, [0, 2, 4, 5, 6, 8, 10, 11]),  # 0.5, 2, 3.5, 5, 6.5, 8, 9.5, 11, halves to even
        (5, 4, [0, 2, 3, 4, 5, 6, 8, 9]),  # 0.25, 1.5, 2.75, 4, and 5 more each
        (4, 3, [0, 2, 3, 4, 6, 7]),  # 0.33, 1.67, 3, 4.33, 5.67, 7
        (9, 6, [0, 2, 4, 5, 6, 8, 10, 11, 12, 14, 16, 17]),  # every 1.5 frames, as in the first
    ],
)
def test_a_window_need_not_be_a_multiple_of_the_grid(window, grid_size, frames):
    ptg = PTG(window=window, levels=2, grid_size=grid_size)
    assert ptg.strides == (window / grid_size, 2 * window / grid_size)
    assert sampled_frames(2 * window, ptg.strides[0]) == frames
    replaced = ptg.rewrite((2 * window, 2, 2)).slots >= 0
    assert replaced.nonzero().flatten().tolist() == [window - 1, 2 * window - 1]


def test_a_mosaic_of_a_window_that_is_no_multiple_of_the_grid():
    """Frames 0, 2, 4 and 5 of six, one tile each; the other five frames stay."""
    maps = torch.arange(6.0)[:, None, None, None].expand(6, 2, 2, 1)
    out = PTG(window=6, levels=1)(maps).tokens.view(6, 4)
    assert out[5].tolist() == [0, 2, 4, 5]
    assert torch.equal(out[:5], maps[:5].reshape(5, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"strides": (1,), "window": 4, "levels": 1},
            "give either strides, one per level, or window and levels, got strides",
        ),
        ({"write": "insert"}, "write cannot be 'insert'"),
        ({"window": 8}, "window and levels must both be given, got window=8, levels=None"),
        ({"window": 8, "levels": 0}, "levels must be a whole number from 1 to 16, got 0"),
        ({"window": 3, "levels": 2}, "window of 3 frames must hold at least grid_size=4 frames, choose a larger"),
        ({"strides": (1, 0)}, "strides must be a number of frames from 1 to 1e.06, got 0"),
        ({"strides": (1, 2), "grid_size": (4, 4, 4)}, r"one per level \(2\), got \(4, 4, 4\)"),
        ({"strides": (0.9,)}, "strides must be a number of frames from 1 to 1e.06, got 0.9"),
        ({"window": "8", "levels": 3}, "window must be a whole number from 1 to 1000000, got '8'"),
        ({"strides": (1, True)}, "strides must be .*, got True"),
        ({"strides": 2}, "strides must be a list .*, got 2"),
        ({"strides": (1,) * 17}, "strides must be a list of at most 16 numbers"),
        ({"window": True, "levels": 3}, "window must be a whole number .*, got True"),
        ({"window": 8, "levels": 10**6}, "levels must be a whole number from 1 to 16, got 1000000"),
        ({"strides": (1, 2), "grid_size": (4, "4")}, r"grid_size must be a list .*, got \(4, '4'\)"),
        ({"strides": (1, 2), "grid_size": 0}, "grid_size must be a whole number from 1 to 1024, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        PTG(**options)
