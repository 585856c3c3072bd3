"""The README's table of all methods: rows are those of the log, and sentences name the methods that they count."""

import json
import re
from pathlib import Path

import pytest

from stgridpool import COMPRESSORS

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "scripts" / "nano" / "README.md").read_text().partition("## Every method at equal budgets")[2]
LOGGED = {row["run"]: row for row in json.loads((ROOT / "logs" / "nano_methods.json").read_text())["rows"]}
NEEDLES, POSITION, FIRST, LAST = "OCR Problems", "Spatial Perception", "Temporal Perception", "Temporal Reasoning"
POOLING = {"average", "bilinear", "max", "nsp", "st_gridpool"}


def shown(share):
    """The rows of a table, without the stars of its seconds."""
    lines = TEXT.partition(f"At retention {share}:\n\n")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip().rstrip("*") for cell in line.strip("|").split("|")] for line in lines]


def logged(name, share):
    return LOGGED.get(f"{name}@{share}") or LOGGED[name]


@pytest.mark.parametrize("share", ["0.5", "0.25", "0.1"])
def test_rows_are_those_of_the_log(share):
    for name, *cells in shown(share):
        row = logged(name, share)
        assert cells == [
            f"{row['tokens_per_frame']:.1f}",
            f"{row['tokens_per_video']:.0f} + {row['newlines_per_video']:.0f}",
            f"{100 * row['retention_mean']:.1f}, {100 * row['retention_total']:.1f}",
            f"{row['seconds_per_question']:.3f}",
            str(row["unanswered"]),
            f"{row['score']:.2f} ± {row['interval']:.2f}",
            *(f"{score:.1f}" for score in row["parts"].values()),
        ], name


def test_every_run_of_the_log_has_a_row():
    assert sum(len(shown(share)) for share in ("0.5", "0.25", "0.1")) == len(LOGGED)


def test_every_method_is_in_it_or_is_said_to_be_left_out():
    rows = {name.partition("_layer")[0].partition("_frames=")[0] for name, *_ in shown("0.5")}
    left_out = set(re.findall(r"`(\w+)`", TEXT.partition("What could not be met")[2].partition("\n\n")[0]))
    assert not {name for name in COMPRESSORS if not {name, f"{name}_importance=received"} & rows} - left_out


def sentence(title):
    """The names that a paragraph mentions."""
    return set(re.findall(r"`(\w+)`", TEXT.partition(f"* **{title}**")[2].partition("\n* **")[0]))


def below(kinds, limit):
    """The methods at retention 0.1 that are below a limit in all these kinds of questions."""
    names = [name for name, *_ in shown("0.1") if not name.startswith("image_grid")]
    low = {name for name in names if all(logged(name, "0.1")["parts"][kind] < limit for kind in kinds)}
    return {name.partition("_importance")[0] for name in low} - {"prumerge_plus"}  # which equals prumerge here


def test_what_loses_needles_order_and_position_is_named():
    of_random = LOGGED["random@0.1"]["parts"][NEEDLES]
    assert below([NEEDLES], of_random) - POOLING <= sentence("Needles")
    assert below([FIRST, LAST], 50) <= sentence("Order")
    assert below([POSITION], 40) <= sentence("Position")
