"""The journal of answers: durable, readable by any number of processes, whatever tore it."""

import json
import os
import resource
import subprocess
import sys
from contextlib import contextmanager

import pytest
from loguru import logger

from lmms_eval_stgridpool.journal import Journal, answer_key, file_identity


@pytest.fixture
def messages():
    seen = []
    handler = logger.add(lambda message: seen.append(str(message)), level="WARNING")
    yield seen
    logger.remove(handler)


def test_answers_are_there_at_the_next_start(tmp_path):
    first = Journal(tmp_path / "new" / "folder", rank=0)
    first.add("a", {"text": "B.", "frames": 4})
    first.add("b", ["ä\n", None])
    second = Journal(tmp_path / "new" / "folder", rank=3)
    assert second.get("a") == {"text": "B.", "frames": 4}
    assert second.get("b") == ["ä\n", None]
    assert second.get("c") is None
    assert len(second) == 2


def test_every_process_writes_a_file_of_its_own(tmp_path):
    for rank in (0, 1, 1):
        Journal(tmp_path, rank).add(str(rank), rank)
    assert len(list(tmp_path.glob("*.jsonl"))) == 3
    assert len(Journal(tmp_path, 0)) == 2


def test_a_torn_last_line_is_skipped(tmp_path, messages):
    whole = Journal(tmp_path, 0)
    whole.add("a", 1)
    whole.add("b", "a long answer, ä")
    file = next(tmp_path.glob("*.jsonl"))
    content = file.read_bytes()
    start = content.index(b"\n") + 1
    for end in range(start, len(content) - 1):
        file.write_bytes(content[:end])
        again = Journal(tmp_path, 0)
        assert again.get("a") == 1
        assert again.get("b") is None
    assert "line 2" in messages[-1]
    file.write_bytes(content[:-1])  # only the line break is missing
    assert Journal(tmp_path, 0).get("b") == "a long answer, ä"


def test_answers_survive_a_process_that_is_killed(tmp_path):
    code = (
        "import os, signal, sys; from lmms_eval_stgridpool.journal import Journal\n"
        "journal = Journal(sys.argv[1], 0)\n"
        "for number in range(5): journal.add(str(number), number)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    again = Journal(tmp_path, 0)
    assert [again.get(str(number)) for number in range(5)] == [0, 1, 2, 3, 4]


@contextmanager
def full_disk(size):
    """Lets no file grow beyond `size` bytes: a write stops in the middle, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_does_not_end_the_run(tmp_path, messages):
    journal = Journal(tmp_path, 0)
    journal.add("a", 1)
    with full_disk(next(tmp_path.glob("*.jsonl")).stat().st_size + 10):
        journal.add("b", 2)
        journal.add("c", 3)
    assert (journal.get("b"), journal.get("c")) == (2, 3)
    (message,) = messages
    assert f"answers are no longer written to {tmp_path}, the run goes on without" in message
    again = Journal(tmp_path, 0)
    assert (again.get("a"), again.get("b"), again.get("c")) == (1, None, None)  # the line of b is torn


def test_keys():
    facts = {"task": "t", "document": 3, "gen_kwargs": {"temperature": 0, "until": ["\n"]}}
    assert answer_key(facts) == answer_key(dict(reversed(facts.items())))
    assert answer_key(facts) != answer_key({**facts, "document": 4})
    assert answer_key(facts) != answer_key({**facts, "gen_kwargs": {"temperature": 1, "until": ["\n"]}})


def test_a_video_that_changes_is_another_one(tmp_path):
    video = tmp_path / "a.mp4"
    missing = file_identity(video)
    video.write_bytes(b"1")
    before = file_identity(video)
    assert missing != before
    assert json.loads(json.dumps(before)) == before
    os.utime(video, ns=(1, 1))
    assert file_identity(video) != before
