"""Equal budgets: by hand, and for every method against what it plans."""

import re
from dataclasses import dataclass

import pytest
import torch

from stgridpool import COMPRESSORS, Average, Compressor, FastV, PyramidDrop, Scorer, Step, build_compressor
from stgridpool.equal_budget import Reference, meet, planned_layers, planned_retention
from stgridpool.retention import DEFINITIONS

OWN = Reference(Average(kernel_size=2), (28, 28), 28)  # 196 tokens a frame
WITHOUT_BUDGET = {
    "none",
    "ptg",
    "image_grid",
    "earlytom_frames",
    "adaptive_pool",
    "oracle_frames",
    "slowfast",
    "sparsevlm",
    "aot",
}


def test_what_enters_the_layers():
    assert planned_layers(build_compressor("none"), 2, OWN) == [4 * 392] * 28  # it stands in for the own pooling
    assert planned_layers(build_compressor("visionzip", retention=0.25), 2, OWN) == [98] * 28
    assert planned_layers(build_compressor("nsp", kernel_size=4), 2, OWN) == [98] * 28
    assert planned_layers(FastV(layer=2), 2, OWN) == [392] * 2 + [196] * 26
    assert planned_layers(PyramidDrop(), 2, OWN) == [392] * 8 + [196] * 8 + [98] * 8 + [49] * 4
    assert planned_layers(build_compressor("bilinear+fastv"), 1, OWN) == [196] * 2 + [98] * 26


def test_every_definition_of_a_pyramid():
    found = planned_retention(PyramidDrop(), 2, OWN)
    mean = (392 * 8 + 196 * 8 + 98 * 8 + 49 * 4) / 28 / 392
    assert found == {"entering_llm": 1, "layer_average": mean, "last_layer": 0.125, "kv_read": mean}


def test_fastv_by_every_definition():
    """Two layers of 28 see everything, so that the others keep (0.25 * 28 - 2) / 26 for a mean of a quarter."""
    assert meet(FastV(), 0.25, "last_layer", OWN).retention == 0.25
    for of in ("layer_average", "kv_read"):
        assert meet(FastV(), 0.25, of, OWN).retention == pytest.approx(5 / 26)
    with pytest.raises(ValueError, match="FastV acts at layer 2: all tokens enter the language model"):
        meet(FastV(), 0.25, "entering_llm", OWN)
    with pytest.raises(ValueError, match="2 of 28 layers keep all tokens"):
        meet(FastV(), 0.05, "layer_average", OWN)


def test_layers_are_those_of_the_model():
    message = r"FastV.* acts at layer 28, and the language model has 28 layers: choose an earlier one in its options"
    for of in ("layer_average", "last_layer"):
        with pytest.raises(ValueError, match=message):
            meet(FastV(layer=28), 0.5, of, OWN)
    with pytest.raises(ValueError, match=message):
        planned_layers(FastV(layer=28), 2, OWN)
    assert planned_layers(FastV(layer=27), 2, OWN) == [392] * 27 + [196]


def test_a_chain_judges_only_the_mean_that_is_asked_for():
    """Of four layers, two hold everything: a mean of 0.3, the default, is not possible; 0.6 is."""
    shallow = Reference(Average(kernel_size=2), (28, 28), 4)
    chain = meet(build_compressor("visionzip+st_simdiff"), 0.6, "layer_average", shallow)
    assert [getattr(method, "layer_average", None) for method in chain.methods] == [None, 0.6]
    assert chain.methods[0].retention == 1
    with pytest.raises(ValueError, match=r"layer_average must be above 2/4.* got 0\.3"):
        meet(build_compressor("visionzip+st_simdiff"), 0.2, "layer_average", shallow)
    with pytest.raises(ValueError, match=r"layer_average must be above 2/4.* got 0\.2"):
        meet(build_compressor("st_simdiff"), 0.2, "layer_average", shallow)


def test_windows_come_as_near_as_whole_sizes_allow():
    assert meet(build_compressor("nsp"), 0.25, "entering_llm", OWN).kernel_size == (4, 4)
    assert meet(build_compressor("st_gridpool"), 0.5, "entering_llm", OWN).kernel_size in ((2, 4), (4, 2))
    odd = Reference(build_compressor("bilinear"), (27, 27), 4)  # 14x14 tokens of 27x27
    method = meet(build_compressor("nsp"), 0.25, "entering_llm", odd)
    assert planned_retention(method, 8, odd)["entering_llm"] == pytest.approx(45 / 196)  # 5x9 for 49


@dataclass(frozen=True)
class FirstPatches(Scorer):
    """Keep the first patches of each frame, in place of the checkpoint's own pooling."""

    def score(self, tokens, evidence):
        return -torch.arange(len(tokens))

    def steps(self):
        return (Step(self, "patches"),)


def test_a_method_in_place_of_the_pooling_counts_from_the_patches():
    """A quarter of 196 tokens are 49 of 784 patches."""
    method = meet(FirstPatches(), 0.25, "entering_llm", OWN)
    assert method.retention == 49 / 784
    assert planned_layers(method, 3, OWN) == [147] * 28


def test_options_that_are_lists_do_not_matter():
    """Options of another method are kept as JSON has them."""
    method = meet(build_compressor("recycle", method="stride", options={"spatial": [2, 2]}), 0.5, "entering_llm", OWN)
    assert planned_retention(method, 8, OWN)["entering_llm"] == 0.5


def test_methods_that_count_as_equal_keep_their_own_options():
    """Without fields of its own, every object of a class equals every other one."""

    class Named(Compressor):
        def __init__(self, name):
            self.name = name

        def plan(self, tokens, evidence):
            raise NotImplementedError

        def at_retention(self, share, of, reference):
            return self

    assert Named("a") == Named("b")
    assert [meet(Named(name), 0.25, "entering_llm", OWN).name for name in "ab"] == ["a", "b"]


CANNOT = {  # what these methods leave at these places is no option of theirs
    ("fastv", "entering_llm"),
    ("sttm", "entering_llm"),
    ("pyramid_drop", "entering_llm"),
    ("framefusion", "entering_llm"),
    ("framefusion", "last_layer"),
    ("st_simdiff", "entering_llm"),
    ("st_simdiff", "last_layer"),
}


@pytest.mark.parametrize("name", [name for name in COMPRESSORS if name not in WITHOUT_BUDGET])
@pytest.mark.parametrize("of", DEFINITIONS)
def test_every_method_meets_it_or_says_why_not(name, of):
    if (name, of) in CANNOT:
        with pytest.raises(ValueError, match=r"enter the language model|has no budget by which"):
            meet(build_compressor(name), 0.5, of, OWN)
        return
    found = planned_retention(meet(build_compressor(name), 0.5, of, OWN), 8, OWN)[of]
    assert found is None or found == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("budget", [{"retention": 0.3}, {"tokens": 100}, {"tokens_per_frame": 10}])
def test_every_method_takes_a_budget_or_says_why_not(name, budget):
    """As its own option: what the method leaves is counted in `stgridpool.contract.test_budgets`."""
    [option] = budget
    if reason := COMPRESSORS[name].without_budget:
        with pytest.raises(ValueError, match=rf"^{name} has no option {option!r}: {re.escape(reason)}$"):
            build_compressor(name, **budget)
    else:
        assert getattr(build_compressor(name, **budget), option) == budget[option]


@pytest.mark.parametrize("name", sorted(WITHOUT_BUDGET))
def test_a_method_without_a_budget_says_so(name):
    reason = re.escape(build_compressor(name).without_budget)
    assert reason
    with pytest.raises(ValueError, match=rf"has no budget by which entering_llm could be 0\.5: {reason}$"):
        meet(build_compressor(name), 0.5, "entering_llm", OWN)


@pytest.mark.parametrize(("retention", "of"), [(0, "entering_llm"), (1.5, "entering_llm"), (0.5, "all")])
def test_bad_values_are_refused(retention, of):
    with pytest.raises(ValueError, match="retention"):
        meet(FastV(), retention, of, OWN)
