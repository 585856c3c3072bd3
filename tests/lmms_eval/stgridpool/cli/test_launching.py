"""Options as words of a command line."""

from pathlib import Path

from lmms_eval_stgridpool.cli.launching import option_words


def test_options_become_words():
    options = {"--limit": 3.0, "--methods": ["nsp", "none"], "--output": Path("out"), "--json": True}
    words = "--limit 3.0 --methods nsp --methods none --output out --json"
    assert option_words(options) == words.split()


def test_what_is_not_given_is_left_out_and_zero_is_not():
    assert option_words({"--limit": None, "--json": False, "--methods": []}) == []
    assert option_words({"--tolerance": 0.0, "--frames": 0}) == ["--tolerance", "0.0", "--frames", "0"]
