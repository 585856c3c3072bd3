"""Which rank checks, and which warnings are shown."""

import pytest
from typer.testing import CliRunner

from lmms_eval_stgridpool.cli.app import app
from lmms_eval_stgridpool.cli.checking import check_first

WARNING = "stgridpool try: a video is missing\n"


@pytest.mark.parametrize(
    ("rank", "words", "said"),
    [
        (None, ["sweep"], WARNING),
        ("0", ["sweep"], WARNING),  # of any launcher
        ("1", ["sweep"], ""),
        ("0", ["--launched", "sweep"], ""),  # the command that started the rank has shown it
    ],
)
def test_warnings_are_shown_once(monkeypatch, capsys, rank, words, said):
    monkeypatch.setattr("sys.argv", ["stgridpool", *words])
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    check_first("stgridpool try", lambda: ("a video is missing",))
    assert capsys.readouterr() == ("", said)


def test_commands_accept_what_their_launcher_adds_and_do_not_show_it():
    assert CliRunner().invoke(app, ["--launched", "methods", "nsp"]).exit_code == 0
    assert "--launched" not in CliRunner().invoke(app, ["--help"]).output
