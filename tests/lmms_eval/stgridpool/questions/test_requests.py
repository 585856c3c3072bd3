import pickle
from types import MethodType, SimpleNamespace

import pytest
from lmms_eval.api.instance import Instance

from lmms_eval_stgridpool.questions.requests import (
    Request,
    Tasks,
    is_padding,
    video_key,
)
from lmms_eval_stgridpool.run.unanswered import UnansweredError


class Task:
    def __init__(self, config_doc_to_visual=len):
        self.config = SimpleNamespace(doc_to_visual=config_doc_to_visual)

    def doc_to_visual(self, doc):
        return [doc["video"]]


def instance(kind, *arguments, **metadata):
    return Instance(
        request_type=kind, arguments=arguments, idx=0, metadata={"task": "t", "doc_id": 1, "repeats": 1} | metadata
    )


DOCUMENTS = {"t": {"test": [{}, {"video": "a.mp4", "answer": "B"}]}}


def test_every_kind_of_request_is_read():
    visual, tasks = Task().doc_to_visual, Tasks(DOCUMENTS)
    generation = tasks.read(5, instance("generate_until", "Q", {"until": "x"}, visual, 1, "t", "test"))
    assert generation == Request("generate_until", 5, "Q", {"until": "x"}, 1, "t", "test")
    assert tasks.visuals(generation) == ["a.mp4"]
    assert tasks.row(generation) == DOCUMENTS["t"]["test"][1]
    fixed = tasks.read(0, instance("loglikelihood", "Q", " B", visual, 1, "t", "test"))
    assert fixed.argument == " B"
    from_document = instance("loglikelihood", "Q", lambda doc: doc["answer"], visual, 1, "t", "test")
    assert tasks.read(0, from_document).argument == "B"
    rounds = instance("generate_until_multi_round", "Q", {}, visual, lambda doc, **state: (doc, state), 1, "t", "test")
    request = tasks.read(0, rounds)
    assert request.argument == {}
    assert tasks.next_round(request, round_idx=1) == (tasks.row(request), {"round_idx": 1})
    assert tasks.known("loglikelihood") == {"t"}
    with pytest.raises(ValueError, match="must ask about visuals, with 6 or 7 arguments, got 2"):
        tasks.read(0, instance("loglikelihood", "", "choice"))


def test_a_request_can_travel():
    request = Tasks(DOCUMENTS).read(0, instance("generate_until", "Q", {}, lambda doc: [], 1, "t", "test"))
    assert pickle.loads(pickle.dumps(request)) == request  # noqa: S301


def test_a_task_that_has_no_visuals_is_text():
    task = Task(config_doc_to_visual=None)
    task.doc_to_visual = MethodType(lambda self, doc: self.config.doc_to_visual, task)
    tasks = Tasks(DOCUMENTS)
    request = tasks.read(0, instance("generate_until", "Q", {}, task.doc_to_visual, 1, "t", "test"))
    assert tasks.visuals(request) == []
    assert tasks.video_key(request) is None


@pytest.mark.parametrize("nothing", [[], None])
def test_a_task_that_shows_nothing_once_leaves_the_question_unanswered(nothing):
    question = instance("generate_until", "Q", {}, lambda doc: nothing, 1, "t", "test")
    tasks = Tasks(DOCUMENTS)
    request = tasks.read(0, question)
    with pytest.raises(UnansweredError, match=r"task t, document 1: .* set answer_without_visuals=True") as raised:
        tasks.visuals(request)
    assert raised.value.kind == "nothing shown"
    assert tasks.video_key(request) is None
    allowing = Tasks(DOCUMENTS, answer_without_visuals=True)
    assert allowing.visuals(allowing.read(0, question)) == []


def test_a_task_that_wants_to_end_the_process_names_no_video():
    def missing(doc):
        raise SystemExit("video path:x.mp4 does not exist, please check")

    tasks = Tasks(DOCUMENTS, answer_without_visuals=True)
    request = tasks.read(0, instance("generate_until", "Q", {}, missing, 1, "t", "test"))
    with pytest.raises(UnansweredError, match=r"task t, document 1: video path:x.mp4 does not exist") as raised:
        tasks.visuals(request)
    assert raised.value.kind == "nothing shown"
    assert tasks.video_key(request) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate_until", "Q", {}, None, 1, "t", "test"),
        ("generate_until_multi_round", "Q", {}, Task().doc_to_visual, None, 1, "t", "test"),
    ],
)
def test_questions_without_their_tasks_functions_name_the_option_that_loses_them(arguments):
    with pytest.raises(ValueError, match=r"task t lack its functions doc_to_visual or doc_to_text.*--cache_requests"):
        Tasks(DOCUMENTS).read(0, instance(*arguments))


def test_a_question_without_visuals_leaves_the_next_its_video():
    tasks = Tasks({"t": {"test": [[], ["a.mp4"]]}})
    first, second = (
        tasks.read(0, instance("generate_until", "Q", {}, list, document, "t", "test")) for document in range(2)
    )
    assert tasks.video_key(first) is None
    assert tasks.video_key(second) == ("a.mp4",)


def test_a_task_that_shows_images_is_asked_once():
    asked = []
    tasks = Tasks({"t": {"test": ["first", "second"]}})
    for document in range(2):
        request = tasks.read(
            0, instance("generate_until", "Q", {}, lambda row: asked.append(row) or [object()], document, "t", "test")
        )
        assert tasks.video_key(request) is None
    assert asked == ["first"]


def test_only_paths_name_videos():
    assert video_key(["a.mp4", "b.mp4"]) == ("a.mp4", "b.mp4")
    assert video_key([]) is None
    assert video_key([object()]) is None


def test_padding_is_recognised():
    assert is_padding(instance("generate_until", __padding_only__=True))
    assert not is_padding(instance("generate_until"))
