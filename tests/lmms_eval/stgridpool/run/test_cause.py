"""The programs that started a run are told why it failed."""

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from lmms_eval_stgridpool.run.cause import CAUSE, note_cause


@pytest.fixture(autouse=True)
def _not_launched(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)


def test_the_script_gets_a_line_for_each_cause(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["lmms_eval", "--output_path", str(tmp_path), "--log_samples"])
    note_cause("rank 0: early")
    assert not list(tmp_path.iterdir())  # no script waits for it
    (tmp_path / CAUSE).touch()
    note_cause("rank 1: two\nlines")
    note_cause("rank 0: later")
    assert (tmp_path / CAUSE).read_text() == "rank 1: two lines\nrank 0: later\n"


def test_the_launcher_shows_the_first_cause_of_a_rank(tmp_path, monkeypatch):
    report = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(report))
    note_cause("there is no\ncompressor 'nps'")
    note_cause("later")
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=1, error_file=str(report))
    *_, last, _ = str(ChildFailedError("lmms_eval", {0: failure})).splitlines()
    assert last == "  traceback : there is no compressor 'nps'"
