"""STTM: every golden case of the released code, the quirks apart, exact budgets, edges."""

import json
import math
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from stgridpool import STTM, Budget, Step, VideoTokens, build_compressor
from stgridpool.compressors.sttm import quadtree_video, temporal_merging
from stgridpool.compressors.sttm.merge_forest import MergeForest
from stgridpool.compressors.sttm.quadtree import halved_sizes, quadtree
from stgridpool.compressors.sttm.sttm import MODES
from stgridpool.compressors.sttm.temporal_merging import join_components
from stgridpool.video_tokens import unravel

FOLDER = Path(__file__).resolve().parents[3] / "golden" / "sttm"
CASES = json.loads((FOLDER / "manifest.json").read_text())["sttm"]
ROUNDED = [case for case in CASES if "bf16" in case["file"]]  # where the original rounds in between
EXACT = [case for case in CASES if case not in ROUNDED]
FILES = {case["file"]: [one for one in EXACT if one["file"] == case["file"]] for case in EXACT}


def case_id(case):
    return f"{case['file'].removeprefix('sttm_').removesuffix('.safetensors')}-{case['tag']}"


@pytest.fixture(scope="session")
def tensors():
    return {path.name: load_file(path) for path in FOLDER.glob("*.safetensors")}


def tokens_of(case, tensors):
    table = tensors[case["file"]]
    x = table["x"][: case["T"]] if "x" in table else table[f"x_{case['tag']}"]
    return x.permute(0, 2, 3, 1).contiguous()


def method(case, **options):
    return STTM(
        spatial_threshold=case["ts"],
        temporal_threshold=case["tt"],
        root_level=case["root"],
        weighted_average=case.get("wavg", False),
        head_dim=case.get("head_dim"),
        slow=case.get("slow", False),
        **({"mode": "released"} | options),
    )


def plan_of(compressor, maps):
    return compressor.plan(VideoTokens.of(maps), {})


def places(plan, shape):
    """(t, y, x) of each token."""
    return unravel(plan.anchor, shape).tolist()


def boxes(forest: MergeForest, plan, shape):
    """(t, y0, x0, y1, x1) of the node that each token stands on."""
    _, height, width = shape
    rows = {}
    for cell, head in enumerate(forest.heads.tolist()):
        y, x = cell // width % height + 1, cell % width + 1
        low = rows.setdefault(head, [0, 0])
        rows[head] = [max(low[0], y), max(low[1], x)]
    return [[*place, *rows[(place[0] * height + place[1]) * width + place[2]]] for place in places(plan, shape)]


@pytest.mark.parametrize("file", FILES)
def test_equals_the_original(file, tensors):
    for case in FILES[file]:
        check_case(case, tensors)


def check_case(case, tensors):
    table, tag, name = tensors[case["file"]], case["tag"], case_id(case)
    tokens = tokens_of(case, tensors)
    compressor = method(case)
    forest = compressor.forest(tokens)
    out, plan = compressor(tokens)
    assert boxes(forest, plan, tokens.shape[:3]) == table[f"{tag}.tlbr"].tolist(), name
    assert plan.rows.offsets.diff().tolist() == table[f"{tag}.num_patch"].tolist(), name
    if f"{tag}.rep" in table:
        nodes = (forest.heads == torch.arange(len(forest.heads))).nonzero().flatten()
        assert torch.searchsorted(nodes, forest.roots()[nodes]).tolist() == table[f"{tag}.rep"].tolist(), name
    if case["has_features"]:
        assert torch.allclose(out, table[f"{tag}.features"], atol=1e-5, rtol=0), name
    else:
        sums, tolerance = out.double().sum(1), 1e-5 * out.shape[1]
        assert torch.allclose(sums, table[f"{tag}.feature_rowsum"].double(), atol=tolerance, rtol=0), name


def natural(frames, height, width, channels, seed):
    """Smooth fields that drift: what is near in space and time is alike."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(frames, channels, max(1, height // 3), max(1, width // 3), generator=generator)
    walk = coarse[:1] * 2 + coarse.cumsum(0) * 0.3
    field = F.interpolate(walk, size=(height, width), mode="bilinear").permute(0, 2, 3, 1)
    return field + 0.1 * torch.randn(frames, height, width, channels, generator=generator)


@pytest.mark.parametrize("file", FILES)
def test_components_of_the_released_matches(file, tensors):
    for case in FILES[file]:
        if case.get("slow"):
            continue
        compressor, tokens = method(case), tokens_of(case, tensors)
        depth = compressor._depth(tokens.shape[:3], None)
        tree = quadtree(tokens.shape[1:3], depth, compressor.weighted_average, tokens.device)
        join = join_components if case["tt"] > 0 else None
        forest = compressor._video(tokens, tree).forest(case["ts"], case["tt"], join)
        assert forest.num_trees() == case["n_tokens_if_true_components"], case_id(case)


@pytest.mark.parametrize("weighted_positions", [False, True])
def test_merged_positions_equal_the_original(weighted_positions, tensors):
    case = next(case for case in CASES if "posmerge" in case["file"] and case.get("pos_w", False) == weighted_positions)
    table = tensors[case["file"]]
    compressor = method(case, positions="merge", weighted_positions=weighted_positions)
    plan = plan_of(compressor, tokens_of(case, tensors))
    (step,) = compressor.steps()
    assert step.merges_evenly == weighted_positions
    if step.merges_evenly:
        counts = plan.rows.offsets.diff()
        plan = plan.weighted(torch.repeat_interleave(1 / counts, counts))
    for name in ("pos_cos", "pos_sin"):
        rows = table[name].permute(0, 2, 3, 1).flatten(0, 2)
        torch.testing.assert_close(plan.apply(rows), table[f"{case['tag']}.{name}"], atol=1e-5, rtol=0)


def test_half_precision_is_close(tensors):
    (case,) = ROUNDED
    tokens = tokens_of(case, tensors)
    out, plan = method(case)(tokens)
    assert out.dtype == torch.bfloat16
    assert abs(len(plan) - case["n_tokens"]) <= 0.02 * case["n_tokens"]
    torch.testing.assert_close(out.float(), plan.apply(tokens.float()), atol=0.02, rtol=0.02)


def scalar_sttm(tokens, spatial, temporal, depth, mode):
    """Boxes of the nodes, and the set of nodes of each token: the definition without the quirks, one node at a time."""
    sizes = halved_sizes(tokens.shape[1:3])[: depth + 1]
    features, boxes = (
        [tokens.double()],
        [{(y, x): (y, x, y + 1, x + 1) for y in range(sizes[0][0]) for x in range(sizes[0][1])}],
    )
    children = [{}]
    for (height, width), (rows, columns) in pairwise(sizes):
        group = {}
        for y in range(height):
            for x in range(width):
                group.setdefault(((y + height % 2) // 2, (x + width % 2) // 2), []).append((y, x))
        below, box = features[-1], boxes[-1]
        feature = torch.stack(
            [torch.stack([below[:, y, x] for y, x in group[key]]).mean(0) for key in sorted(group)], dim=1
        )
        features.append(feature.unflatten(1, (rows, columns)))
        boxes.append({key: (*box[cells[0]][:2], *box[cells[-1]][2:]) for key, cells in group.items()})
        children.append(group)

    def kept(frame, level, key):
        cells = children[level].get(key, [])
        alike = [cosine(features[level][frame][key], features[level - 1][frame][cell]) for cell in cells]
        if level == 0 or (len(cells) > 1 and min(alike) >= spatial):
            return [(frame, *boxes[level][key])], [features[level][frame][key]]
        parts = [kept(frame, level - 1, cell) for cell in cells]
        return tuple(list(chain.from_iterable(lists)) for lists in zip(*parts, strict=True))

    found = [kept(frame, depth, key) for frame in range(len(tokens)) for key in boxes[depth]]
    nodes = {node: vector for part in found for node, vector in zip(*part, strict=True)}
    owner = {node: node for node in sorted(nodes)}
    for later in sorted(nodes):
        matches = []
        for earlier, vector in nodes.items():
            alike = cosine(vector, nodes[later])
            if earlier[0] + 1 == later[0] and overlap(earlier, later) and temporal > 0 and alike >= temporal:
                matches.append((-alike, earlier))
        if mode == "directed":
            matches = sorted(matches)[:1]
        for _, earlier in matches:
            first, second = sorted((owner[earlier], owner[later]))
            owner = {node: first if top == second else top for node, top in owner.items()}
    tokens_of_top = {}
    for node, top in owner.items():
        tokens_of_top.setdefault(top, []).append(nodes[node])
    tops = sorted(tokens_of_top)
    return tops, torch.stack([torch.stack(tokens_of_top[top]).mean(0) for top in tops])


def cosine(first, second):
    return float(F.cosine_similarity(first, second, dim=0))


def overlap(first, second):
    (_, top, left, bottom, right), (_, y0, x0, y1, x1) = first, second
    return top < y1 and y0 < bottom and left < x1 and x0 < right


@pytest.mark.parametrize("mode", ["components", "directed"])
@pytest.mark.parametrize(
    ("shape", "root_level"), [((4, 7, 7), 0), ((3, 6, 5), 0), ((5, 3, 3), 0), ((3, 9, 6), 1), ((1, 7, 6), 0)]
)
def test_equals_the_definition(mode, shape, root_level):
    for seed, (spatial, temporal) in enumerate([(0.9, 0.8), (0.7, 0.6), (0.95, 0.0), (0.5, 0.95)]):
        tokens = natural(*shape, 16, seed)
        compressor = STTM(mode=mode, spatial_threshold=spatial, temporal_threshold=temporal, root_level=root_level)
        out, plan = compressor(tokens)
        tops, features = scalar_sttm(tokens, spatial, temporal, compressor._depth(shape, None), mode)
        assert [tuple(box) for box in boxes(compressor.forest(tokens), plan, shape)] == tops
        torch.testing.assert_close(out, features.float(), atol=1e-5, rtol=0)


def test_the_quirks_are_only_in_the_released_mode():
    tokens = torch.randn(2, 14, 14, 32, generator=torch.Generator().manual_seed(0))
    counts = {mode: len(plan_of(STTM(mode=mode, spatial_threshold=0.99), tokens)) for mode in MODES}
    assert counts == {"released": 2 * 193, "components": 2 * 196, "directed": 2 * 196}  # one 2x2 block is never tested


@pytest.mark.parametrize("mode", MODES)
def test_edges_of_the_thresholds(mode):
    tokens = torch.randn(3, 14, 14, 32)
    out, plan = STTM(mode=mode, spatial_threshold=1.1, temporal_threshold=1.1)(tokens)
    assert torch.equal(out, tokens.flatten(0, 2))
    every_place = torch.cartesian_prod(torch.arange(3), torch.arange(14), torch.arange(14))
    assert places(plan, (3, 14, 14)) == every_place.tolist()
    assert len(plan_of(STTM(mode=mode, spatial_threshold=-1.1, temporal_threshold=0), tokens)) == 3 * 16
    assert len(plan_of(STTM(mode=mode, spatial_threshold=-1.1, temporal_threshold=0, root_level=0), tokens)) == 3 * 4
    assert len(plan_of(STTM(mode=mode, spatial_threshold=-1.1, temporal_threshold=1e-9), tokens.abs())) == 16
    still = tokens[:1].expand(7, -1, -1, -1)
    assert len(plan_of(STTM(mode=mode, spatial_threshold=1.1, temporal_threshold=0.99), still)) == 196
    assert len(plan_of(STTM(mode=mode), torch.zeros(3, 14, 14, 8))) == 3 * 196


def test_equality_passes():
    # Of ones of width 4 every norm is 2 and every cosine exactly 1.
    plan = plan_of(
        STTM(mode="components", spatial_threshold=1, temporal_threshold=0, root_level=0), torch.ones(1, 4, 4, 4)
    )
    assert len(plan) == 4
    assert len(plan_of(STTM(spatial_threshold=2, temporal_threshold=1), torch.ones(3, 1, 2, 4))) == 2


def test_slow_ignores_heads_over_time():
    # The cosine is nearly 1, and of the two halves 1 and -1.
    tokens = torch.tensor([[10.0, 0.0, 0.1, 0.0], [10.0, 0.0, -0.1, 0.0]]).view(2, 1, 1, 4)
    assert len(plan_of(STTM(head_dim=2), tokens)) == 2
    assert len(plan_of(STTM(head_dim=2, slow=True), tokens)) == 1


def test_slow_takes_the_most_similar_of_the_matches_of_one_node():
    # Frame 1 is all alike. In frame 0 one block of 2x2 is at 50, 40, 10 and 30 degrees to it, the others are opposite.
    angles = torch.full((2, 4, 4), 170.0)
    angles[0, :2, :2] = torch.tensor([[50.0, 40.0], [10.0, 30.0]])
    angles[1] = 0
    tokens = torch.stack([angles.deg2rad().cos(), angles.deg2rad().sin()], dim=-1)
    options = {"spatial_threshold": 0.999, "temporal_threshold": 0.6, "root_level": 0}
    assert STTM(**options).forest(tokens).roots()[16] == 0
    assert STTM(slow=True, **options).forest(tokens).roots()[16] == 4


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("budget", [{"retention": share} for share in (0.5, 0.3, 0.15, 0.05)], ids=str)
def test_budgets_are_met_exactly(mode, budget):
    compressor = STTM(mode=mode, **budget)
    is_smooth = budget["retention"] in (0.5, 0.15)
    for seed, (frames, height, width) in enumerate([(8, 14, 14), (16, 7, 7), (1, 14, 14), (5, 9, 13), (6, 5, 4)]):
        is_smooth = not is_smooth  # each shape is random at two budgets, and smooth at two
        tokens = natural(frames, height, width, 16, seed) if is_smooth else torch.randn(frames, height, width, 16)
        plan = plan_of(compressor, tokens)
        count = int(budget["retention"] * frames * height * width)
        assert len(plan) == compressor.planned_count((frames, height, width)) == count
        assert torch.equal(plan.rows.sources.sort().values, torch.arange(frames * height * width))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", [torch.ones, torch.randn], ids=lambda make: make.__name__)
def test_every_count_can_be_met(mode, make):
    tokens = make(3, 5, 6, 8)
    for count in (1, 2, 3, 4, 17, 29, 30, 31, 88, 89, 90):  # 30 tokens a frame
        assert len(plan_of(STTM(mode=mode, tokens=count), tokens)) == count
    assert len(plan_of(STTM(mode=mode, tokens=1000), tokens)) == 90
    assert len(plan_of(STTM(mode=mode, tokens_per_frame=7), tokens)) == 21


def test_ties_are_settled_by_place():
    plan = plan_of(STTM(tokens=3, spatial_threshold=1.1), torch.ones(1, 2, 2, 4))
    assert plan.rows.offsets.diff().tolist() == [2, 1, 1]  # all merges are equal; the first one is kept
    assert plan.rows.sources.tolist() == [0, 1, 2, 3]


def test_a_budget_keeps_the_most_similar_merges():
    # Four frames of one token; angles to the one before of 10, 30 and 20 degrees.
    angles = torch.tensor([0.0, 10.0, 40.0, 60.0]).deg2rad()
    tokens = torch.stack([angles.cos(), angles.sin()], dim=1).view(4, 1, 1, 2)
    groups = {
        count: plan_of(STTM(mode="directed", tokens=count), tokens).rows.offsets.tolist() for count in (1, 2, 3, 4)
    }
    assert groups == {4: [0, 1, 2, 3, 4], 3: [0, 2, 3, 4], 2: [0, 2, 4], 1: [0, 4]}


def test_a_count_that_cannot_be_met():
    compressor = STTM(temporal_threshold=0, tokens=2)
    with pytest.raises(
        ValueError, match=r"budget for \(3, 5, 6\) must be at least 3 tokens, one per frame, got 2: set temp"
    ):
        compressor.planned_count((3, 5, 6))
    with pytest.raises(ValueError, match="at least 3 tokens"):
        plan_of(compressor, torch.randn(3, 5, 6, 8))
    assert STTM(temporal_threshold=0, tokens_per_frame=1).planned_count((3, 5, 6)) == 3
    assert STTM(retention=0.5).planned_count((3, 5, 6)) == 45
    assert STTM().planned_count((3, 5, 6)) is None


def test_retention_is_a_budget():
    compressor = build_compressor("sttm", retention=0.3)
    assert compressor.budget == Budget(ratio=0.3)
    assert build_compressor("sttm", tokens=9).budget == Budget(tokens=9)
    assert STTM().budget == Budget()


class HostReads(TorchDispatchMode):
    """Counts operations whose result, or whose shape, the host has to wait for on a GPU."""

    WAITING = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.unique", "aten.bincount")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        by_index = name in ("aten.index.Tensor", "aten.index_put.default", "aten.index_put_.default")
        by_mask = by_index and any(index is not None and index.dtype == torch.bool for index in args[1])
        unknown_size = name == "aten.repeat_interleave.Tensor" and not (kwargs or {}).get("output_size")
        self.count += name.startswith(self.WAITING) or by_mask or unknown_size
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("budget", [{}, {"retention": 0.3}], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_at_most_two_host_reads(mode, budget, monkeypatch):
    """And what reading saves, rounds that change nothing and forests that are counted twice, changes nothing."""
    tokens = natural(16, 14, 14, 8, seed=0)
    compressor = STTM(mode=mode, **budget)
    expected = compressor(tokens).plan  # index tables are made once per size
    for module in (temporal_merging, quadtree_video):
        monkeypatch.setattr(module, "reading_is_free", lambda device: False)  # as on a GPU
    with HostReads() as reads:
        plan = compressor(tokens).plan
    assert 1 <= reads.count <= 2
    assert torch.equal(plan.rows.sources, expected.rows.sources)
    assert torch.equal(plan.rows.offsets, expected.rows.offsets)


def test_an_input_of_any_layout_is_left_as_it_is():
    tokens = torch.randn(4, 8, 7, 6).permute(0, 2, 3, 1)
    before = tokens.clone()
    out, plan = STTM(retention=0.4)(tokens)
    assert torch.equal(tokens, before)
    same, _ = STTM(retention=0.4)(tokens.contiguous())
    assert torch.equal(out, same)
    dense = torch.zeros(len(plan), plan.num_sources)
    dense[plan.rows.row_of_entry(), plan.rows.sources] = plan.rows.weights
    torch.testing.assert_close(out, dense @ tokens.reshape(-1, 8))


def test_published_settings():
    assert len(STTM.PRESETS) == 1 + 12 + 12 + 6 + 2
    compressor = build_compressor("sttm", preset="qwen2-vl-7b/vnbench/30")
    assert (compressor.spatial_threshold, compressor.temporal_threshold) == (0.75, 0.5)
    assert (compressor.layer, compressor.root_level, compressor.positions) == (2, 1, "survive")
    largest = build_compressor("sttm", preset="llava-video-72b/videomme/50")
    assert (largest.spatial_threshold, largest.temporal_threshold, largest.layer) == (0.94, 0.82, 0)
    for preset in STTM.PRESETS:
        compressor = STTM(preset=preset)
        assert compressor.preset == preset
        step = Step(compressor, compressor.layer, compressor.positions, decode_gap=True, merges_evenly=False)
        assert compressor.steps() == (step,)


def test_options_take_precedence_over_the_preset():
    compressor = STTM(preset="llava-video-7b/vnbench/50", layer=3)
    assert (compressor.preset, compressor.layer, compressor.temporal_threshold) == (None, 3, 0.65)
    assert STTM(preset="llava-video-7b/vnbench/50", layer=2).preset == "llava-video-7b/vnbench/50"
    assert STTM(mode="components").steps()[0].decode_gap is False


@pytest.mark.parametrize(
    "options",
    [
        {"retention": 0.3},
        {"tokens": 9},
        {"tokens_per_frame": 9},
        {"weighted_average": True},
        {"head_dim": 8},
        {"slow": True},
        {"positions": "merge", "weighted_positions": True},
        {"mode": "directed"},
    ],
    ids=str,
)
def test_a_preset_is_named_only_while_every_option_is_its_own(options):
    compressor = STTM(preset="llava-video-7b/vnbench/50", **options)
    assert compressor.preset is None
    assert compressor.temporal_threshold == 0.65


def test_without_a_preset_what_presets_set_comes_from_the_call():
    settings = {"spatial_threshold": 0.9, "temporal_threshold": 0.6, "root_level": 1, "layer": 2}
    assert STTM(preset=None, mode="released", positions="reassign", **settings).spatial_threshold == 0.9
    assert replace(STTM(retention=0.3), tokens=None) == STTM(retention=0.3)
    with pytest.raises(ValueError, match="without a preset, mode, positions must be given"):
        STTM(preset=None, **settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "llava-video-7b/video-mme/50"}, "did you mean 'llava-video-7b/videomme/50'"),
        ({"mode": "direct"}, "mode cannot be 'direct', did you mean 'directed'"),
        ({"positions": "survives"}, "positions cannot be 'survives', did you mean 'survive'"),
        ({"spatial_threshold": math.nan}, "spatial_threshold must be a number from -2 to 2, got nan"),
        ({"layer": -1}, "layer must be a whole number from 0 to 1000, got -1"),
        ({"root_level": 0.5}, "root_level must be a whole number from -32 to 32, got 0.5"),
        ({"head_dim": 0}, "head_dim must be a whole number from 1 to 65536, got 0"),
        ({"slow": True, "mode": "directed"}, "slow needs mode 'released', got 'directed'"),
        ({"weighted_positions": True}, "weighted_positions needs positions 'merge', got 'reassign'"),
        ({"retention": 0.0}, "retention must be a number above 0 and at most 1, got 0.0"),
        ({"tokens": 3.5}, "tokens must be a whole number from 1 to 1000000000, got 3.5"),
        ({"retention": 0.5, "tokens": 3}, "given in one way"),
        ({"retention": True}, "retention must be a number .*, got True"),
        ({"retention": "0.3"}, "got '0.3'"),
        ({"retention": math.nan}, "got nan"),
        ({"spatial_threshold": "0.8"}, "got '0.8'"),
        ({"layer": True}, "layer must be a whole number .*, got True"),
        ({"tokens": True}, "tokens must be a whole number .*, got True"),
        ({"slow": "false"}, "slow must be True or False .*, got 'false'"),
        ({"weighted_average": 1}, "weighted_average must be True or False .*, got 1"),
        ({"mode": 1}, "mode cannot be 1"),
        ({"preset": ["released"]}, "preset cannot be"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        STTM(**options)


def test_a_head_dim_that_does_not_fit():
    with pytest.raises(ValueError, match="head_dim must divide the width 10 of the tokens, got 4"):
        STTM(head_dim=4)(torch.randn(2, 4, 4, 10))
