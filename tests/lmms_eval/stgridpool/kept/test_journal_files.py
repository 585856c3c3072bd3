"""The journal of answers: durable, readable by any number of processes, whatever tore it."""

import json
import os
import resource
from contextlib import contextmanager

import pytest
from loguru import logger

from lmms_eval_stgridpool.kept.journal_files import JournalFiles, decode_line, encode_line

CODE = {"stgridpool": "0.2", "torch": "2.14", "commit": "abc", "source": "1"}


def open_journal(folder, rank=0, takes_other_code=False, **other):
    return JournalFiles(folder, rank, CODE | other, takes_other_code)


def answers(folder, **options):
    """What a run would find in the folder."""
    journal = open_journal(folder, **options)
    return {key: kept.answer for key, kept in journal._answers.items()}


@pytest.fixture
def messages():
    seen = []
    handler = logger.add(lambda message: seen.append(str(message)), level="WARNING")
    yield seen
    logger.remove(handler)


def test_answers_are_there_at_the_next_start(tmp_path):
    first = open_journal(tmp_path / "new" / "folder")
    first.add("a", {"text": "B.", "frames": 4})
    first.add("b", ["ä\n", None, float("inf"), "\ud800"])
    second = open_journal(tmp_path / "new" / "folder", rank=3)
    assert second.get("a").answer == first.get("a").answer == {"text": "B.", "frames": 4}
    assert second.get("b").answer == ["ä\n", None, float("inf"), "\ud800"]
    assert second.get("c") is None
    assert len(second) == 2


def test_every_process_writes_a_file_of_its_own(tmp_path):
    for rank in (0, 1, 1):
        open_journal(tmp_path, rank).add(str(rank), rank)
    assert len(list(tmp_path.iterdir())) == 3
    assert len(open_journal(tmp_path)) == 2
    assert len(list(tmp_path.iterdir())) == 3  # a run that answers nothing writes nothing


def test_a_torn_last_line_is_skipped(tmp_path, messages):
    whole = open_journal(tmp_path)
    whole.add("a", 1)
    whole.add("b", "a long answer, ä")
    file = next(tmp_path.glob("*.jsonl"))
    content = file.read_bytes()
    start = content.index(b"\n") + 1
    for end in range(start, len(content) - 1):
        file.write_bytes(content[:end])
        assert answers(tmp_path) == {"a": 1}
    assert f"{file}: line 2 skipped (damaged)" in messages[-1]
    file.write_bytes(content[:-1])  # only the line break is missing
    assert answers(tmp_path)["b"] == "a long answer, ä"


def test_a_flipped_bit_is_not_another_answer(tmp_path):
    line = encode_line({"key": "a", "answer": {"text": "A", "tokens": 11}, "code": CODE})
    assert decode_line(line) == {"key": "a", "answer": {"text": "A", "tokens": 11}, "code": CODE}
    for position in range(len(line) - 1):
        for bit in range(8):
            damaged = bytearray(line)
            damaged[position] ^= 1 << bit
            with pytest.raises(ValueError, match=r"damaged|shape"):
                decode_line(bytes(damaged))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"[1, 2]", "malformed"),
        (encode_line({"answer": 1, "code": CODE}), "malformed"),
        (encode_line({"key": "a", "code": CODE}), "malformed"),
        (encode_line({"key": 3, "answer": 1, "code": CODE}), "malformed"),
        (encode_line({"key": "a", "answer": 1, "code": "0.1"}), "malformed"),
        (encode_line({"key": "a", "answer": 1, "code": CODE})[:-1].replace(b'"answer": 1', b'"answer": 2'), "damaged"),
        (b"[" * 100_000, "damaged"),
        (b"\xff\xfe", "damaged"),
    ],
    ids=repr,
)
def test_a_line_that_is_not_one_is_named(tmp_path, messages, line, reason):
    good = encode_line({"key": "b", "answer": 2, "code": CODE})
    (tmp_path / "x.jsonl").write_bytes(good + line.rstrip(b"\n") + b"\n" + good.replace(b"b", b"b"))
    assert answers(tmp_path) == {"b": 2}
    (message,) = messages
    assert f"{tmp_path}/x.jsonl: line 2 skipped ({reason}); the questions are asked again" in message


def test_the_format_of_the_first_version_is_said_once_for_each_file(tmp_path, messages):
    old = "".join(json.dumps({"key": str(number), "answer": number}) + "\n" for number in range(100))
    (tmp_path / "old.jsonl").write_text(old)
    assert answers(tmp_path) == {}
    (message,) = messages
    assert "old.jsonl: lines 1, 2, 3, 4, 5 and 95 more skipped (in version 0.1's format" in message
    assert answers(tmp_path, rank=1) == {}
    assert len(messages) == 1  # one process says it


def test_answers_of_other_code_are_asked_again(tmp_path, messages):
    journal = open_journal(tmp_path, torch="2.13", commit="old")
    for name in "abc":
        journal.add(name, f"old {name}")
    open_journal(tmp_path, source="2").add("d", "other source")
    open_journal(tmp_path, commit="a commit that changed the README").add("a", "new a")
    assert answers(tmp_path) == {"a": "new a"}
    message = messages[-1]
    assert f"3 answers in {tmp_path} come from other code, so their questions are asked again" in message
    assert "2 of stgridpool 0.2, torch 2.13, commit old; 1 of stgridpool 0.2, torch 2.14, commit abc" in message
    assert "resume_any_version=True takes these answers" in message

    everything = open_journal(tmp_path, takes_other_code=True)
    assert {name: everything.get(name).answer for name in "abcd"} == {
        "a": "new a",
        "b": "old b",
        "c": "old c",
        "d": "other source",
    }
    assert [everything.get(name).is_of_other_code for name in "abcd"] == [False, True, True, True]
    assert everything.get("b").place.endswith(".jsonl, line 2")


@pytest.mark.parametrize(("name", "is_other"), [(name, name != "commit") for name in CODE])
def test_a_commit_alone_is_not_other_code(tmp_path, name, is_other):
    open_journal(tmp_path, **{name: "other"}).add("a", 1)
    assert answers(tmp_path) == ({} if is_other else {"a": 1})


def test_fifos_and_dangling_links_neither_hang_nor_stop_it(tmp_path, messages):
    open_journal(tmp_path).add("a", 1)
    os.mkfifo(tmp_path / "fifo.jsonl")
    (tmp_path / "link.jsonl").symlink_to("nowhere")
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    assert answers(tmp_path) == {"a": 1}
    assert [message.count("is skipped because it cannot be read") for message in messages] == [1] * 4
    assert "fifo.jsonl is not a regular file" in messages[0]


@pytest.mark.parametrize("folder", ["", " "])
def test_an_empty_path_is_not_the_working_directory(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="resume_dir must be a path, got an empty text"):
        open_journal(folder)
    assert not list(tmp_path.iterdir())


def test_answers_survive_a_process_that_is_killed(tmp_path, run_python):
    code = (
        "import os, signal, sys; from lmms_eval_stgridpool.kept.journal_files import JournalFiles\n"
        "journal = JournalFiles(sys.argv[1], 0, {})\n"
        "for number in range(5): journal.add(str(number), number)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = run_python("-c", code, tmp_path)
    assert done.returncode == -9
    again = JournalFiles(tmp_path, 0, {})
    assert [again.get(str(number)).answer for number in range(5)] == [0, 1, 2, 3, 4]


@contextmanager
def full_disk(size):
    """Lets no file grow beyond `size` bytes: a write stops in the middle, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_that_is_full_for_a_moment_costs_no_answer(tmp_path, messages):
    journal = open_journal(tmp_path)
    journal.add("a", 1)
    with full_disk(next(tmp_path.glob("*.jsonl")).stat().st_size + 10):
        for number in range(100):
            journal.add(f"b{number}", number)
        assert journal.flush() == 100
    assert journal.get("b7").answer == 7
    (message,) = messages
    assert f"answers cannot be written to {tmp_path}; they are kept in memory for now" in message
    journal.add("c", 3)
    assert journal.flush() == 0
    assert f"101 answers that were kept in memory are now written to {tmp_path}" in messages[1]
    journal.add("d", 4)
    assert answers(tmp_path) == {"a": 1, "c": 3, "d": 4} | {f"b{number}": number for number in range(100)}
    assert len(messages) == 2  # nothing is said about torn lines: there are none


def test_answers_that_wait_are_written_at_the_end_of_the_process(tmp_path, run_python):
    code = (
        "import resource, sys; from lmms_eval_stgridpool.kept.journal_files import JournalFiles\n"
        "journal = JournalFiles(sys.argv[1], 0, {})\n"
        "limits = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))\n"
        "journal.add('a', 1)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, limits)\n"
        "sys.exit(1)"
    )
    done = run_python("-c", code, tmp_path)
    assert done.returncode == 1
    assert JournalFiles(tmp_path, 0, {}).get("a").answer == 1


def test_a_folder_that_cannot_be_written_is_refused_at_the_start(tmp_path):
    with full_disk(0), pytest.raises(OSError, match=rf"resume_dir must be a writable folder.*{tmp_path}"):
        open_journal(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=r"resume_dir must be a folder, and .*file is not one"):
        open_journal(tmp_path / "file")
