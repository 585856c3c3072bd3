"""The command converts, says what is lost, and ends with one line if it cannot."""

import sys

import pytest


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("convert_checkpoint")


@pytest.fixture(scope="module")
def tiny(load_script, tmp_path_factory):
    maker = load_script("make_tiny_checkpoint")
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    maker.write_checkpoint(folder, maker.SIZES["tiny"], seed=0)
    return folder


def run(script, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["convert_checkpoint.py", *map(str, arguments)])
    monkeypatch.setattr(script.signal, "signal", lambda *_: None)  # handlers belong to the test run
    script.main()


def test_there_and_back(script, tiny, tmp_path, monkeypatch, capsys):
    run(script, monkeypatch, tiny, tmp_path / "native")
    told = capsys.readouterr().out
    assert "- mm_newline_position=grid: the native class puts one newline after a video" in told
    assert told.endswith(f"{tmp_path / 'native'}: written; greedy answers equal to the original's\n")
    run(script, monkeypatch, tmp_path / "native", tmp_path / "back", "--no-verify")
    assert capsys.readouterr().out == f"{tmp_path / 'back'}: written; greedy answers not compared\n"
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes()


def test_an_error_is_one_line(script, tiny, tmp_path, monkeypatch):
    (tmp_path / "native").mkdir()
    with pytest.raises(SystemExit, match=r"^error: .*native exists, and nothing is overwritten"):
        run(script, monkeypatch, tiny, tmp_path / "native")
