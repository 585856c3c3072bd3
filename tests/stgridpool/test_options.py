import json
import math

import pytest

from stgridpool import options


@pytest.mark.parametrize("value", [0, 11, True, False, 2.0, "2", None, math.nan, [2]])
def test_whole_numbers_are_whole_and_within_their_range(value):
    assert options.whole_number("n", 10, 1, 10) == 10
    with pytest.raises(ValueError, match=r"^n must be a whole number from 1 to 10, got "):
        options.whole_number("n", value, 1, 10)
    with pytest.raises(ValueError, match=r"^n must be a list of whole numbers from 1 to 10, at most 3, got "):
        options.whole_numbers("n", [1, value], 1, 10, most=3)
    with pytest.raises(ValueError, match=r"^n must be a whole number from 1 to 10, or \(rows, columns\), got "):
        options.pair("n", [1, value], 1, 10)


def test_lists_of_whole_numbers():
    assert options.whole_numbers("n", [1, 2], 1, 10, most=3) == (1, 2)
    assert options.whole_numbers("n", (), 1, 10, most=3) == ()
    assert options.pair("n", 3, 1, 10) == (3, 3)
    assert options.pair("n", [3, 4], 1, 10) == (3, 4)
    for value in (5, "12", [1, 2, 3, 4]):
        with pytest.raises(ValueError, match=r"at most 3, got"):
            options.whole_numbers("n", value, 1, 10, most=3)


@pytest.mark.parametrize("value", [-0.1, 1.1, True, "0.5", None, math.nan, math.inf, -math.inf])
def test_numbers_are_finite_and_within_their_range(value):
    assert options.number("x", 1, 0, 1) == 1.0
    assert isinstance(options.number("x", 1, 0, 1), float)
    with pytest.raises(ValueError, match=r"^x must be a number of seconds from 0 to 1, got "):
        options.number("x", value, 0, 1, "seconds")
    with pytest.raises(ValueError, match=r"^x must be a number above 0 and at most 1, got "):
        options.fraction("x", value)


def test_a_fraction_is_above_0():
    assert options.fraction("x", 1) == 1.0
    with pytest.raises(ValueError, match=r"above 0 and at most 1, got 0"):
        options.fraction("x", 0)


@pytest.mark.parametrize("value", ["false", "True", 0, 1, None])
def test_flags_are_true_or_false(value):
    assert options.flag("on", True) is True
    with pytest.raises(ValueError, match=r"^on must be True or False .*, got "):
        options.flag("on", value)


@pytest.mark.parametrize("value", ["sdpaa", 1, None, ["sdpa"], {}])
def test_choices_are_among_those_known(value):
    assert options.choice("kind", "sdpa", ("sdpa", "eager")) == "sdpa"
    with pytest.raises(ValueError, match=r"^kind cannot be .* Available: sdpa, eager"):
        options.choice("kind", value, ("sdpa", "eager"))


@pytest.mark.parametrize("value", [7, 1.5, True, None])
def test_text_is_text(value):
    assert options.text("name", "./7") == "./7"
    with pytest.raises(ValueError, match=r"name must be text, got "):
        options.text("name", value)


@pytest.mark.parametrize("value", ["", " "])
def test_text_is_not_empty(value):
    with pytest.raises(ValueError, match=r"name must not be empty"):
        options.text("name", value)


def test_json_objects_name_no_key_twice():
    assert options.json_object("args", '{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    for given in ('{"a": 1, "a": 2}', '{"x": {"a": 1, "b": 1, "a": 1}}'):
        with pytest.raises(ValueError, match=r"args must be JSON, got .*: 'a' is given twice; leave one out"):
            options.json_object("args", given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{preset:paper}", "args must be JSON, got '{preset:paper}': Expecting property name"),
        ("", "args must be JSON, got ''"),
        ("[1]", r"args must be a JSON object such as .*, got \[1\]"),
        ("[" * 200_000, "args is nested too deeply"),
        (json.dumps(5), "args must be a JSON object"),
    ],
)
def test_other_json_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        options.json_object("args", given)
