"""submit_egoschema.py against a real HTTP server on this machine, in this process and as a command."""

import importlib.util
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import process_time

import pytest

from stgridpool.egoschema.server import LARGEST_ANSWER, read_scores
from stgridpool.egoschema.submission_file import SubmissionError
from stgridpool.egoschema.submit import check_url

SCRIPT = Path(__file__).resolve().parent.parent / "submit_egoschema.py"
SCORES = (
    "Total result: 3000 correct, 2029 wrong, 1 missing, 1 invalid, accuracy: 0.5963\n"
    "Public subset result: 305 correct, 195 wrong, 0 missing, 0 invalid, accuracy: 0.61"
)
SILENCE = "silence"
TRICKLE = "trickle"
TRICKLED_HEADERS = "trickled headers"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("submit_egoschema", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.headers["Content-Type"], json.loads(body)))
        self.server.credentials.append(self.headers["Authorization"])
        status, text = self.server.answers.pop(0)
        if status == SILENCE:
            self.server.over.wait()
            return
        if status == TRICKLED_HEADERS:
            self.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
            self.write_until_over(b"x")
            return
        if status == TRICKLE:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())
            self.write_until_over(b"x")
            return
        self.send_response(status)
        if status == 301:
            self.send_header("Location", self.server.url)
        self.end_headers()
        if callable(text):
            text(self)
        else:
            self.wfile.write(text.encode())

    def write_until_over(self, piece):
        """Never end by itself, nor let a second pass without a byte."""
        try:
            while not self.server.over.wait(0.01):
                self.wfile.write(piece)
        except OSError:
            self.server.closed_by_client.set()

    def log_message(self, *args):
        pass


def flood(handler):
    """Write until the client has gone."""
    try:
        while True:
            handler.wfile.write(b"y" * 2**16)
    except OSError:
        handler.server.closed_by_client.set()


@pytest.fixture
def server():
    """Answers the list `answers` of (status, text) in turn, and keeps what it `received`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.answers, server.received, server.credentials = [], [], []
        server.over, server.closed_by_client = threading.Event(), threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}/api/upload/"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.over.set()
        server.shutdown()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working folder, so that no list of questions lies in it, and no proxy between us and the server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path


@pytest.fixture
def submission(folder):
    """A file in order: 5031 answers."""
    return write(folder / "submission.json", {f"q{i}": i % 5 for i in range(5031)})


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def run(script, capsys):
    """Run the command in this process: exit status, output, and the waits that it asked for in place of waiting."""

    def run(*arguments):
        waits = []
        status = script.main([str(argument) for argument in arguments], wait=waits.append)
        captured = capsys.readouterr()
        return status, captured.out + captured.err, waits

    return run


def test_success_reports_scores_of_both_sets(run, server, submission, folder):
    server.answers = [(200, SCORES)]
    status, output, waits = run("--f", submission, "--url", server.url, "--output", folder / "new" / "answer.json")
    assert (status, waits) == (0, [])
    assert server.received == [("application/json", json.loads(submission.read_text()))]
    assert f"{server.url} answered with status 200" in output
    assert "Total result: 59.63 % (3000 correct, 2029 wrong, 1 missing, 1 invalid)" in output
    assert "Public subset result: 61.00 % (305 correct, 195 wrong, 0 missing, 0 invalid)" in output
    saved = json.loads((folder / "new" / "answer.json").read_text())
    assert (saved["status"], saved["answer"]) == (200, SCORES)
    assert saved["scores"]["Public subset result"]["accuracy"] == 0.61


def test_scores_are_found_when_the_answer_is_a_json_string():
    assert list(read_scores(json.dumps(SCORES))) == ["Total result", "Public subset result"]


def test_server_errors_are_tried_again_with_growing_waits(run, server, submission):
    server.answers = [(500, "boom"), (503, ""), (502, ""), (200, SCORES)]
    status, output, waits = run("--f", submission, "--url", server.url, "--backoff", 20)
    assert (status, waits) == (0, [20.0, 40.0, 60.0])
    assert len(server.received) == 4
    assert "answered with status 500; trying again in 20 s (1 of 6)" in output


def test_server_errors_to_the_end_are_a_failure_and_the_answer_is_kept(run, server, submission, folder):
    server.answers = [(500, "boom")] * 3
    status, output, _ = run("--f", submission, "--url", server.url, "--retries", 2, "--output", folder / "answer.json")
    assert status == 1
    assert len(server.received) == 3
    assert "boom" in output
    assert "error: the server gave no scores" in output
    assert json.loads((folder / "answer.json").read_text())["status"] == 500


@pytest.mark.parametrize("refusal", [400, 404, 429, 301])
def test_refusals_are_never_tried_again(run, server, submission, refusal):
    server.answers = [(refusal, "not like this")]
    status, output, waits = run("--f", submission, "--url", server.url)
    assert (status, waits, len(server.received)) == (1, [], 1)
    assert f"answered with status {refusal}" in output
    assert "not like this" in output


def test_an_answer_without_scores_is_a_failure(run, server, submission):
    server.answers = [(200, "thank you")]
    status, output, _ = run("--f", submission, "--url", server.url)
    assert status == 1
    assert "thank you" in output


def test_timeouts_are_tried_again(run, server, submission):
    server.answers = [(SILENCE, ""), (TRICKLED_HEADERS, "")]
    options = ("--timeout", 0.3, "--retries", 1, "--backoff", 3)
    status, output, waits = run("--f", submission, "--url", server.url, *options)
    assert (status, waits) == (1, [3.0])
    assert f"no answer from {server.url}: " in output
    assert "timed out" in output
    assert "(tried 2 times)" in output
    assert f"5031 answers were posted to {server.url}, and no answer has come" in output


def test_an_answer_that_trickles_is_taken_as_far_as_it_has_come(run, server, submission, folder):
    server.answers = [(TRICKLE, "thank you ")] * 101  # on a busy machine, the status may come too late at first
    options = ("--timeout", 1, "--retries", 100, "--output", folder / "answer.json")
    status, output, _ = run("--f", submission, "--url", server.url, *options)
    assert status == 1
    assert server.closed_by_client.wait(60)
    saved = json.loads((folder / "answer.json").read_text())
    assert (saved["status"], saved["whole"]) == (200, False)
    assert set(saved["answer"]) <= set("thank you x")
    assert "the answer was cut off after " in output


def test_an_answer_without_end_fills_no_memory(run, server, submission, folder):
    server.answers = [(200, flood)]
    status, output, _ = run("--f", submission, "--url", server.url, "--output", folder / "answer.json")
    assert status == 1
    assert server.closed_by_client.wait(60)
    assert json.loads((folder / "answer.json").read_text())["answer"] == "y" * LARGEST_ANSWER
    assert "cut off after 100000 bytes: it was too long or too slow" in output
    assert len(output) < 4000


def test_scores_count_though_the_answer_is_cut_off(run, server, submission):
    def go_on(handler):
        handler.wfile.write(SCORES.encode() + b"\n")
        flood(handler)

    server.answers = [(200, go_on)]
    status, output, _ = run("--f", submission, "--url", server.url)
    assert status == 0
    assert "Total result: 59.63 %" in output
    assert "the answer was cut off" in output


def test_the_text_of_a_redirection_is_limited_too(run, server, submission):
    server.answers = [(301, flood)]
    status, output, _ = run("--f", submission, "--url", server.url)
    assert (status, len(server.received)) == (1, 1)
    assert "answered with status 301" in output
    assert server.closed_by_client.wait(60)


def test_an_answer_is_saved_before_it_is_parsed(run, server, submission, folder, monkeypatch):
    def fail(text):
        raise KeyboardInterrupt

    monkeypatch.setattr("stgridpool.egoschema.submit.read_scores", fail)
    server.answers = [(200, SCORES)]
    status, output, _ = run("--f", submission, "--url", server.url, "--output", folder / "answer.json")
    assert status == 130
    assert f"interrupted: 5031 answers were posted to {server.url}, which answered with status 200" in output
    assert json.loads((folder / "answer.json").read_text())["answer"] == SCORES


@pytest.mark.parametrize("text", ["a", "a a ", "a:", "1 correct, "])
def test_no_answer_takes_long_to_parse(text):
    started = process_time()
    assert read_scores(text * (2 * LARGEST_ANSWER // len(text))) == {}
    assert process_time() - started < 30  # 4 * 10^10 steps with a pattern that has no end


@pytest.mark.parametrize(
    ("accuracy", "share"), [("0.995", 0.995), ("99.5", 0.995), ("1", 0.01), ("100", 1.0), ("0", 0.0)]
)
def test_accuracies_are_fractions_or_percent_whichever_agrees_with_the_counts(accuracy, share):
    correct = round(1000 * share)
    text = f"Total result: {correct} correct, {1000 - correct} wrong, 0 missing, 0 invalid, accuracy: {accuracy}"
    assert read_scores(text)["Total result"]["accuracy"] == pytest.approx(share)


def test_accuracies_above_100_percent_are_none():
    assert read_scores(SCORES.replace("0.5963", "101").replace("0.61", "612.5")) == {}


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), os.mkfifo], ids=["folder", "fifo"])
def test_an_output_that_is_no_file_is_noticed_before_posting(run, server, submission, folder, make):
    make(folder / "answer")
    status, output, _ = run("--f", submission, "--url", server.url, "--output", folder / "answer")
    assert (status, server.received) == (1, [])
    assert f"--output {folder / 'answer'}: must be a file" in output
    assert "nothing was sent" in output


@pytest.mark.parametrize("replaced", ["submission", "questions"])
def test_an_output_that_would_replace_what_is_read_is_noticed_before_posting(run, server, submission, folder, replaced):
    questions = write(folder / "questions.json", [*json.loads(submission.read_text())])
    file = {"submission": submission, "questions": questions}[replaced]
    before = file.read_bytes()
    (folder / "link").symlink_to(file)
    words = ("--f", submission, "--questions", questions, "--url", server.url, "--output", folder / "link")
    status, output, _ = run(*words)
    assert (status, server.received) == (1, [])
    assert f"would replace {file}, which is read" in output
    assert file.read_bytes() == before


@pytest.mark.parametrize("path", ["submission.json/answer", "/proc/answer/x", "x" * 300])
def test_an_output_that_cannot_be_written_is_noticed_before_posting(run, server, submission, path):
    status, output, _ = run("--f", submission, "--url", server.url, "--output", path)
    assert (status, server.received) == (1, [])
    assert "error: --output " in output


def test_checking_the_output_leaves_no_file_and_an_old_one_as_it_is(run, submission, folder):
    write(folder / "old.json", "old")
    for name in ("old.json", "new.json"):
        assert run("--f", submission, "--dry-run", "--output", folder / name)[0] == 0
    assert sorted(path.name for path in folder.iterdir()) == ["old.json", "submission.json"]
    assert (folder / "old.json").read_text() == "old"


def test_ctrl_c_ends_without_a_traceback(script, server, submission, capsys):
    def interrupt(seconds):
        raise KeyboardInterrupt

    server.answers = [(500, "")]
    assert script.main(["--f", str(submission), "--url", server.url], wait=interrupt) == 130
    assert f"interrupted: 5031 answers were posted to {server.url}, and no answer has come" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--timeout", value) for value in ("nan", "inf", "-1", "0", "1e300", "soon")]
    + [("--retries", value) for value in ("-1", "1.5", "1000000000")]
    + [("--backoff", value) for value in ("-1", "nan", "1e300")]
    + [
        ("--url", value) for value in ("nowhere", "file:///etc/passwd", "http://", "http://me:secret@host/", "http://[")
    ],
)
def test_bad_options_are_a_message(run, server, submission, capsys, option, value):
    with pytest.raises(SystemExit, match="2"):
        run("--f", submission, "--url", server.url, option, value)
    assert f"argument {option}: must be " in (errors := capsys.readouterr().err)
    assert "nothing was sent" in errors
    assert server.received == []


def test_no_password_is_taken_from_netrc(run, server, submission, folder, monkeypatch):
    monkeypatch.setenv("NETRC", str(write(folder / "netrc", "machine 127.0.0.1 login me password secret")))
    server.answers = [(200, SCORES)]
    assert run("--f", submission, "--url", server.url)[0] == 0
    assert server.credentials == [None]


@pytest.mark.parametrize("url", ["http://me:secret@127.0.0.1/", "ftp://127.0.0.1/", "127.0.0.1", "http://[/"])
def test_an_address_with_a_password_or_of_another_kind_is_refused(url):
    with pytest.raises(SubmissionError, match="the URL must be http"):
        check_url(url)


def test_control_characters_are_not_printed(run, server, submission, folder):
    server.answers = [(400, "no\x1b[2J\x07\u202e\nreally")]
    _, output, _ = run("--f", submission, "--url", server.url)
    assert "no\\x1b[2J\\x07\\u202e\nreally" in output
    bad = write(folder / "bad.json", {"\x1b]0;x\x07": 7})
    _, output, _ = run("--f", bad, "--url", server.url)
    assert "\\x1b]0;x\\x07: 7" in output
    assert "\x1b" not in output


def test_many_doubled_keys_do_not_take_long(run, folder):
    pairs = ",".join(f'"q{i // 2}":1' for i in range(100_000))
    started = process_time()
    status, output, _ = run("--f", write(folder / "bad.json", "{" + pairs + "}"), "--dry-run")
    assert process_time() - started < 30  # minutes, if each key were counted
    assert status == 1
    assert "named twice: q0, q1, q2, q3, q4 and 49995 more" in output


def test_refused_connections_are_tried_again_and_then_a_failure(run, submission):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as closed:
        url = f"http://127.0.0.1:{closed.server_port}/"
    status, output, waits = run("--f", submission, "--url", url, "--retries", 2)
    assert (status, waits) == (1, [5.0, 10.0])
    assert f"error: no answer from {url}" in output
    assert "tried 3 times" in output


def test_dry_run_sends_nothing(run, server, submission):
    status, output, _ = run("--f", submission, "--url", server.url, "--dry-run")
    assert (status, server.received) == (0, [])
    assert "5031 answers, in order (ids not checked: no list of questions)" in output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON: Expecting property name"),
        ('{"a": 1, "b": 2, "a": 3}', "named twice: a"),
        ([1, 2], "must be a JSON object from question id to answer, got list"),
        ("[" * 200_000, "is nested too deeply"),
        ({"a": 5, "b": 1}, "answers must be integers from 0 to 4, got 1 others: a: 5"),
        ({"a": -1}, "a: -1"),
        ({"a": True}, "a: True"),
        ({"a": "3"}, "a: '3'"),
        ({"a": 2.0}, "a: 2.0"),
        ({f"q{i}": None for i in range(9)}, "q4: None and 4 more"),
        ({"a": 1}, "must answer all 5031 questions, got 1; if a part is meant, name its ids with --questions"),
    ],
)
def test_files_that_are_not_in_order_are_not_sent(run, server, folder, content, message):
    status, output, _ = run("--f", write(folder / "bad.json", content), "--url", server.url)
    assert (status, server.received) == (1, [])
    assert "error: " in output
    assert str(folder / "bad.json") in output
    assert message in output


@pytest.mark.parametrize("option", ["--f", "--questions", "--output"])
def test_an_empty_path_is_not_the_working_directory(script, submission, capsys, option):
    words = ["--f", str(submission), "--dry-run", option, ""]
    with pytest.raises(SystemExit, match="2"):
        script.main(words)
    assert "must be a path, got an empty text" in capsys.readouterr().err


def test_a_missing_file_is_a_message(run, folder):
    status, output, _ = run("--f", folder / "none.json")
    assert status == 1
    assert "none.json: cannot be read: No such file or directory" in output


@pytest.mark.parametrize(
    "questions", [["a", "b"], [{"q_uid": "a"}, {"q_uid": "b"}], [{"video_idx": "a"}, "b"], {"a": 0, "b": 1}]
)
def test_question_ids_are_read_from_every_form(run, folder, questions):
    submission = write(folder / "part.json", {"a": 0, "b": 4})
    status, output, _ = run("--f", submission, "--questions", write(folder / "ids.json", questions), "--dry-run")
    assert status == 0
    assert f"2 answers, in order (against {folder / 'ids.json'})" in output


def test_missing_and_unknown_ids_are_named(run, folder):
    submission = write(folder / "part.json", {"a": 0, "x": 4})
    status, output, _ = run("--f", submission, "--questions", write(folder / "ids.json", ["a", "b", "c"]), "--dry-run")
    assert status == 1
    assert "2 questions without an answer: b, c; 1 questions that are not expected: x" in output


def test_the_cached_list_is_taken_where_the_data_lie(run, folder):
    write(folder / "data" / "egoschema" / "questions.json", [{"q_uid": "a"}])
    status, output, _ = run("--f", write(folder / "part.json", {"b": 1}), "--dry-run")
    assert status == 1
    assert "1 questions without an answer: a" in output


@pytest.mark.parametrize("questions", [[], 5, ["a", "a"], [{"id": "a"}], [1]])
def test_lists_of_questions_that_are_none_are_a_message(run, folder, submission, questions):
    status, output, _ = run("--f", submission, "--questions", write(folder / "ids.json", questions), "--dry-run")
    assert status == 1
    assert "ids.json: must list question ids" in output


def test_as_a_command(server, submission):
    server.answers = [(500, ""), (200, SCORES)]
    command = [sys.executable, SCRIPT, "--f", submission, "--url", server.url, "--backoff", "0.01"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr
    assert "Total result: 59.63 %" in done.stdout
    server.answers = [(400, "no")]
    assert subprocess.run(command, capture_output=True, timeout=1200, check=False).returncode == 1
