"""Options of compressors at a retention."""

import pytest

from lmms_eval_stgridpool.comparison.choice import Choice, at_retentions, remarks_on_all
from stgridpool import Bilinear
from stgridpool.equal_budget import Reference, meet


@pytest.mark.parametrize("words", ["st_gridpool", "nsp", 'average:{"kernel_size":2}', "visionzip"])
def test_options_at_a_retention_build_the_method_that_meets_it(words):
    reference, choice = Reference(Bilinear(2), (14, 14), 28), Choice.parse(words)
    found = choice.at(0.25, "entering_llm", reference)
    assert found.build() == meet(choice.build(), 0.25, "entering_llm", reference)
    assert "preset" not in found.options  # options that follow from the others are left out


def test_a_chain_at_a_retention_names_the_options_of_its_methods():
    choice = Choice.parse('visionzip+fastv:{"fastv":{"layer":7}}')
    found = choice.at(0.25, "layer_average", Reference(Bilinear(2), (28, 28), 28))
    assert found.options == {"visionzip": {"retention": pytest.approx(0.4)}, "fastv": {"layer": 7}}
    assert found.folder.endswith("@0.25")


def test_one_that_cannot_work_in_the_model_is_named_and_a_budget_that_may_suit_the_videos_is_not_judged():
    """10 tokens are no whole frames."""
    reference = Reference(Bilinear(2), (28, 28), 20)
    frames = Choice.parse('temporal_average:{"tokens":10}')
    assert remarks_on_all([frames, Choice.parse('divprune:{"tokens":1000}')], reference, 2) == [
        "divprune_tokens=1000: DivPrune keeps all 392 tokens that reach it: its budget, tokens=1000, is larger"
    ]
    with pytest.raises(ValueError, match=r"^pyramid_drop_preset=released: layers must .* 20 layers"):
        remarks_on_all([frames, Choice.parse('pyramid_drop:{"preset":"released"}')], reference, 2)


def test_a_share_that_is_missed_has_its_reason():
    """Of 5 frames of 196, groups of four leave 2, 0.8 of which is 313; 3x6 windows leave 36 a frame, not 39."""
    choices = list(map(Choice.parse, ("temporal_average+visionzip", "nsp")))
    reference = Reference(Bilinear(2), (28, 28), 28)
    _, remarks = at_retentions(choices, [0.2], "entering_llm", reference, 5)
    assert remarks == [
        "temporal_average+visionzip@0.2: leaves 31.9 % of 5 frames: what its methods leave depends on the number of "
        "frames",
        "nsp@0.2: leaves 18.4 % of 5 frames: it comes in whole sizes, and this is the nearest",
    ]


METHOD = """
from dataclasses import dataclass
from stgridpool import Bilinear

@dataclass(frozen=True)
class Elsewhere(Bilinear):
    pass
"""


def test_a_method_from_elsewhere_has_a_colon_in_its_name(tmp_path, monkeypatch):
    (tmp_path / "bilinear_elsewhere.py").write_text(METHOD)
    monkeypatch.syspath_prepend(tmp_path)
    name = "bilinear_elsewhere:Elsewhere"
    assert (Choice.parse(name).name, Choice.parse(name).options) == (name, {})
    assert repr(Choice.parse(f'{name}:{{"stride":3}}').build()) == "Elsewhere(stride=3)"
    chain = Choice.parse(f'{name}+fastv:{{"fastv":{{"layer":7}}}}')
    assert (chain.name, chain.options) == (f"{name}+fastv", {"fastv": {"layer": 7}})


@pytest.mark.parametrize("text", ["nsp:kernel_size=3", "nsp:3"])
def test_options_of_a_method_of_ours_that_are_no_object_are_named(text):
    with pytest.raises(ValueError, match=rf"^{text}: its options must be "):
        Choice.parse(text)
