"""The catalogue of methods, and its agreement with the table of methods."""

import re
from dataclasses import dataclass, fields

import pytest

from documents import TEXT
from stgridpool import COMPRESSORS, Compressor, presets
from stgridpool.catalogue import describe
from stgridpool.table_presets import TABLE_PRESETS

ROWS = {row[0]: row[1:] for row in re.findall(r"^\| `(\w+)` \|" + r" ?(.*?) ?\|" * 7 + "$", TEXT, flags=re.MULTILINE)}


def test_the_table_has_a_row_for_each_method_and_no_other():
    assert set(ROWS) == set(COMPRESSORS)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_the_table_agrees(name):
    entry, (_, where, question, options, tokens_left, source, _) = describe(name), ROWS[name]
    if name not in ("recycle", "per_segment", "none"):  # "as `method`"; and an option decides
        assert question.split(";")[0] == ("yes" if entry.query_aware else "no")
        for place in ("pooling", "tokens", "layer"):
            assert (place in where) == (place in entry.where), place
    defaults = {option.name: option.default for option in entry.options}
    for option, default in re.findall(r"`(\w+)` \((-?[\d./]+)(?: [^)]*)?\)", f"{options}, {tokens_left}"):
        numerator, _, denominator = default.partition("/")
        value = float(numerator) / float(denominator or 1)
        assert defaults[option] in (value, None), option  # None: it follows from other options, as PTG's window does
    for part in re.split("[,;] ", source)[1:]:
        assert part.strip() in entry.source.replace(" (", ", ").replace(")", ""), part


def said_of(name):
    """The row of a method, with those that it refers to: "as `average`", "the options of `ptg` and of `nsp`"."""
    text = " ".join(ROWS[name])
    others = re.findall(r"\bas `(\w+)`|\boptions of `(\w+)`|\band of `(\w+)`", text)
    return " ".join([text, *(" ".join(ROWS.get("".join(other), ())) for other in others)])


@pytest.mark.parametrize("name", COMPRESSORS)
def test_the_table_names_all_options_and_presets(name):
    """Apart from the depth of a model, which no user sets, and names of published runs."""
    entry, text = describe(name), said_of(name)
    assert not [one.name for one in entry.options if one.name != "depth" and f"`{one.name}`" not in text]
    assert not [preset for preset in entry.presets if "/" not in preset and f"`{preset}`" not in text]


@pytest.mark.parametrize("name", COMPRESSORS)
def test_the_table_says_where_there_is_no_budget(name):
    assert ("no budget" in ROWS[name][4]) == bool(COMPRESSORS[name].without_budget)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_every_option_is_described(name):
    entry = describe(name)
    assert [option.name for option in entry.options] == [field.name for field in fields(COMPRESSORS[name])]
    for option in entry.options:
        assert len(option.text) >= len("See above."), option
        assert not option.text.startswith("See `"), option
        assert "``" not in option.text
    assert entry.summary.endswith((".", "14"))
    assert entry.presets == presets(name)
    assert bool(set(entry.presets) - set(TABLE_PRESETS)) == ("preset" in [option.name for option in entry.options])


def test_an_option_of_another_class_is_described_in_its_words():
    options = {option.name: option for option in describe("st_gridpool").options}
    assert options["norm_order"].default == 2.0
    assert options["norm_order"].text.startswith("Order p of the norm, 0.25 to 64")
    assert options["strides"].text.startswith("Without strides there are no mosaics. Frames from one sampled frame")
    assert options["grid_size"].text.startswith("Frames per grid")


def test_presets_of_a_published_comparison_are_listed():
    assert describe("fastervlm").presets == ("nvila/30", "nvila/50")
    assert describe("st_gridpool").presets[-1] == "nvila/30"  # the comparison has no row of it at 50 %


def test_what_sets_the_number_of_tokens():
    assert describe("average").budget == "169 of 27x27 per frame"  # (27 // 2)^2
    assert describe("bilinear").budget == "196 of 27x27 per frame"  # 14^2
    assert describe("fastv").budget == "retention (0.5) or tokens or tokens_per_frame or layer_average"
    assert describe("temporal_average").budget.endswith("tokens_per_frame, else 182.2 of 27x27 per frame")  # 729 / 4
    assert describe("holitom").budget.endswith("; inner_retention (0.5)")
    assert describe("sttm").budget.endswith("else the tokens decide")


def test_where_methods_act():
    assert describe("sparsevlm").where == "layers 3, 7, 16"
    assert describe("flashvid").where == "tokens, layer 20"
    assert describe("image_grid").where == "frames"
    assert describe("earlytom_frames").where == "tower layers -20, -5, -3"
    assert describe("earlytom").where == "tower layers -20, -5, -3, tokens, layer 18"


@dataclass(frozen=True)
class Undocumented(Compressor):
    factor: int = 3

    def plan(self, tokens, evidence):
        raise NotImplementedError


def test_a_method_of_another_package_may_say_nothing_of_its_options(monkeypatch):
    monkeypatch.setattr("stgridpool.catalogue.find_method", lambda name: Undocumented)
    monkeypatch.setattr("stgridpool.catalogue.build_compressor", lambda name: Undocumented())
    [option] = describe("my.module:Undocumented").options
    assert (option.name, option.default, option.text) == ("factor", 3, "")


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="there is no compressor 'vizionzip', did you mean 'visionzip'"):
        describe("vizionzip")
