"""A run that goes on where an earlier one stopped."""

import json
import os
import shutil
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import pytest
from lmms_eval.api.instance import unwrap_generation_output
from loguru import logger
from PIL import Image

from llava import video_model
from lmms_eval_stgridpool.kept import journal as module
from lmms_eval_stgridpool.kept.identity import git_commit
from lmms_eval_stgridpool.kept.journal import Journal
from lmms_eval_stgridpool.kept.journal_files import JournalFiles, decode_line, encode_line
from lmms_eval_stgridpool.kept.sample_facts import Answered, SampleFacts
from lmms_eval_stgridpool.questions.requests import Request
from lmms_eval_stgridpool.run.llava_arguments import LlavaArguments

QUESTIONS = [
    {"visuals": [name], "context": f"Question {index}?", "gen_kwargs": {"max_new_tokens": 4}}
    for index, name in enumerate(["v0.mp4", "v1.mp4", "v0.mp4", "v2.mp4"])
]


def texts(results):
    return [unwrap_generation_output(result)[0] for result in results]


def facts(results):
    return [unwrap_generation_output(result)[1].to_dict() for result in results]


@pytest.fixture
def count(monkeypatch):
    """Counts the answers that models compute."""
    from lmms_eval_stgridpool.llava_video import LlavaVideo

    computed = []
    answer_batch = LlavaVideo._answer_batch
    monkeypatch.setattr(
        LlavaVideo, "_answer_batch", lambda self, jobs, *rest: computed.extend(jobs) or answer_batch(self, jobs, *rest)
    )
    return computed


def test_no_question_is_asked_twice(make_model, ask, tmp_path, count):
    first = make_model(resume_dir=str(tmp_path))
    half = ask(first, "generate_until", QUESTIONS[:2])
    again = make_model(resume_dir=str(tmp_path))
    whole = ask(again, "generate_until", QUESTIONS)
    assert len(count) == 2 + 2
    assert texts(whole) == texts(ask(make_model(), "generate_until", QUESTIONS))
    assert facts(whole)[:2] == facts(half)
    assert (again._sums.resumed_requests, again._sums.requests) == (2, 2)


def test_losses_and_rounds_are_kept_too(make_model, ask, tmp_path, count):
    choices = [{"visuals": ["v0.mp4"], "context": "Which?", "continuation": word} for word in ("A", "B")]

    def finish(document, previous_output, round_idx, previous_round_info):
        return None, None, True, previous_output, None

    rounds = [{"visuals": ["v1.mp4"], "context": "First?", "doc_to_text": finish}]
    kinds = [("loglikelihood", choices), ("generate_until_multi_round", rounds)]
    before = [texts(ask(make_model(resume_dir=str(tmp_path)), kind, documents)) for kind, documents in kinds]
    computed = len(count)
    after = [texts(ask(make_model(resume_dir=str(tmp_path)), kind, documents)) for kind, documents in kinds]
    assert after == before
    assert isinstance(after[0][0], tuple)
    assert len(count) == computed == 3


OTHER_SETTINGS = [
    {"compressor": "bilinear"},
    {"compressor_args": '{"preset": "paper"}'},
    {"max_frames_num": 4},
    {"fps": 1},
    {"mm_newline_position": "no_token"},
    {"add_time_instruction": True},
    {"rope_scaling": 2},
    {"max_length": 8192},
    {"video_decode_backend": "decord"},
    {"attn_implementation": "eager"},
    {"deterministic": True},
]


@pytest.mark.usefixtures("_settings_of_torch")
def test_another_setting_is_another_run(make_model, ask, tmp_path, count):
    for number, setting in enumerate([{}, *OTHER_SETTINGS], 1):
        ask(make_model(resume_dir=str(tmp_path), **setting), "generate_until", QUESTIONS[:1])
        assert len(count) == number, setting


def test_a_changed_list_of_frames_is_another_run(make_model, ask, tmp_path, count):
    listed = tmp_path / "frames.json"

    def run(frames):
        listed.write_text(json.dumps({"v0.mp4": frames}))
        options = {"compressor": "oracle_frames", "compressor_args": json.dumps({"file": str(listed)})}
        model = make_model(resume_dir=str(tmp_path / "answers"), **options)
        ask(model, "generate_until", QUESTIONS[:1])
        return len(count), model._setup["compressor_files"]

    (first, before), (again, same), (changed, after) = run([0]), run([0]), run([1])
    assert (first, again, changed) == (1, 1, 2)
    assert before == same != after


def test_another_question_or_video_is_asked(make_model, ask, tmp_path, count, clips):
    ask(make_model(resume_dir=str(tmp_path)), "generate_until", QUESTIONS[:1])
    model = make_model(resume_dir=str(tmp_path))
    ask(model, "generate_until", [{**QUESTIONS[0], "context": "Another?"}])
    ask(model, "generate_until", [{**QUESTIONS[0], "gen_kwargs": {"max_new_tokens": 5}}])
    assert len(count) == 3
    times = os.stat(clips / "v0.mp4")
    os.utime(clips / "v0.mp4", ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    ask(make_model(resume_dir=str(tmp_path)), "generate_until", QUESTIONS[:1])
    assert len(count) == 4


def test_a_changed_checkpoint_or_picture_is_another_question(make_model, ask, tmp_path, count, checkpoint):
    copied = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(3):
        Image.new("RGB", (32, 32), (index, 0, 0)).save(pictures / f"{index}.png")
    question = {"visuals": [str(pictures)], "context": "What?", "gen_kwargs": {"max_new_tokens": 2}}

    def run():
        model = make_model(pretrained=str(copied), resume_dir=str(tmp_path / "answers"))
        ask(model, "generate_until", [question])
        return len(count)

    assert [run(), run()] == [1, 1]
    Image.new("RGB", (32, 32), (0, 99, 0)).save(pictures / "1.png")
    assert [run(), run()] == [2, 2]
    weights = next(copied.glob("*.safetensors"))
    os.utime(weights, ns=(weights.stat().st_atime_ns, weights.stat().st_mtime_ns + 1))
    assert [run(), run()] == [3, 3]


def rewrite(folder, change):
    """Change what a journal's only line says, and its checksum."""
    (file,) = folder.glob("*.jsonl")
    record = decode_line(file.read_bytes().rstrip())
    change(record)
    file.write_bytes(encode_line(record))


def test_answers_of_other_code_are_asked_again_or_taken(make_model, ask, tmp_path, count):
    ask(make_model(resume_dir=str(tmp_path)), "generate_until", QUESTIONS[:1])
    rewrite(tmp_path, lambda record: record["code"].update(torch="2.13"))
    taking = make_model(resume_dir=str(tmp_path), resume_any_version=True)
    ask(taking, "generate_until", QUESTIONS[:1])
    taking.clean()
    assert len(count) == 1
    assert taking.run_record["resume_any_version"] is True
    assert (taking.run_record["resumed_requests"], taking.run_record["resumed_of_other_code"]) == (1, 1)
    asking = make_model(resume_dir=str(tmp_path))
    ask(asking, "generate_until", QUESTIONS[:1])
    asking.clean()
    assert len(count) == 2
    assert asking.run_record["resume_any_version"] is False
    assert (asking.run_record["resumed_requests"], asking.run_record["resumed_of_other_code"]) == (0, 0)


def test_a_line_says_what_found_the_answer(make_model, ask, tmp_path):
    ask(make_model(resume_dir=str(tmp_path)), "generate_until", QUESTIONS[:1])
    (file,) = tmp_path.glob("*.jsonl")
    code = json.loads(file.read_text())["code"]
    versions = {name: version(name) for name in ("stgridpool", "transformers", "torch")}
    assert code == versions | {"commit": git_commit(Path(module.__file__)), "source": code["source"]}


def test_facts_of_another_version_do_not_matter(make_model, ask, tmp_path, count):
    ask(make_model(resume_dir=str(tmp_path)), "generate_until", QUESTIONS[:1])
    rewrite(tmp_path, lambda record: record["answer"]["facts"].update(unheard_of=1))
    ask(make_model(resume_dir=str(tmp_path)), "generate_until", QUESTIONS[:1])
    assert len(count) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(answer=[]),
        lambda record: record["answer"].pop("facts"),
        lambda record: record["answer"].update(answer=["A"]),
        lambda record: record["answer"].update(facts=[]),
        lambda record: record["answer"]["facts"].update(frames="8"),
        lambda record: record["answer"]["facts"].update(kept_tokens={"entering_llm": "8"}),
    ],
)
def test_an_answer_of_the_wrong_shape_is_named_and_asked_again(tmp_path, change):
    arguments, setup = LlavaArguments(pretrained="x", resume_dir=str(tmp_path)), dict.fromkeys(module.OF_SETUP)
    request = Request("generate_until", 0, "What?", {}, 0, "task", "test")
    before = Journal(arguments, 0, setup)
    before.keep(before.name(request, None), Answered("A", SampleFacts(frames=8, kept_tokens={"entering_llm": 8})))
    again = Journal(arguments, 0, setup)
    assert again.get(again.name(request, None), request).answer == "A"
    rewrite(tmp_path, change)
    messages = []
    handler = logger.add(messages.append, level="WARNING")
    again = Journal(arguments, 0, setup)
    assert again.get(again.name(request, None), request) is None
    logger.remove(handler)
    (message,) = messages
    assert ".jsonl, line 1: malformed answer, its question is asked again" in message


def test_another_picture_is_another_question(make_model, ask, tmp_path, count):
    def run(*colours):
        pictures = [Image.new("RGB", (32, 32), colour) for colour in colours]
        question = {"visuals": pictures, "context": "What?", "gen_kwargs": {"max_new_tokens": 2}}
        ask(make_model(resume_dir=str(tmp_path)), "generate_until", [question])
        return len(count)

    assert [run("red"), run("red"), run("blue"), run("red", "blue"), run("red", "blue")] == [1, 1, 2, 3, 3]


def test_a_tower_from_elsewhere_counts(make_model, ask, tmp_path, count):
    """Its weights may come from another folder or the hub, where nothing in the checkpoint's folder changes."""
    ask(make_model(resume_dir=str(tmp_path)), "generate_until", QUESTIONS[:1])
    for expected, digest in ((2, "1"), (2, "1"), (3, "2")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(video_model, "weights_digest", lambda module, digest=digest: digest)
            ask(make_model(resume_dir=str(tmp_path)), "generate_until", QUESTIONS[:1])
        assert len(count) == expected


def test_every_argument_counts_unless_it_is_named():
    names = {argument.name for argument in fields(LlavaArguments)}
    assert set(module.INDECISIVE) <= names
    decisive = names - set(module.INDECISIVE)
    assert {"max_frames_num", "fps", "force_sample", "add_time_instruction", "conv_template"} <= decisive


def test_answers_that_could_not_be_kept_are_counted(make_model, ask, tmp_path, monkeypatch):
    def fail(self, lines):
        raise OSError("No space left on device")

    model = make_model(resume_dir=str(tmp_path))
    monkeypatch.setattr(JournalFiles, "_append", fail)
    messages = []
    handler = logger.add(messages.append, level="ERROR")
    ask(model, "generate_until", QUESTIONS[:3])
    model.clean()
    logger.remove(handler)
    monkeypatch.undo()
    model._journal.finish()
    assert model.run_record["answers_not_kept"] == 3
    assert [message.count("answers cannot be written") for message in messages] == [1, 0]
    assert f"3 answers are missing from {tmp_path}, which could not be written" in messages[1]


def test_each_repeat_is_an_answer_of_its_own(make_model, ask, tmp_path, count):
    for _ in range(2):
        model = make_model(resume_dir=str(tmp_path))
        for _ in range(2):
            ask(model, "generate_until", QUESTIONS[:1])
    assert len(count) == 2


def test_failures_are_tried_again(make_model, ask, tmp_path, count):
    for _ in range(2):
        results = ask(make_model(resume_dir=str(tmp_path)), "generate_until", [{"visuals": ["broken.mp4"]}])
        assert facts(results)[0]["failed"]
    assert len(count) == 2


def test_without_a_folder_nothing_is_written(make_model, ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ask(make_model(), "generate_until", QUESTIONS[:1])
    assert not list(tmp_path.iterdir())
