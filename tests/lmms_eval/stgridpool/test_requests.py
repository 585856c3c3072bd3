import pickle
from argparse import Namespace
from pathlib import Path

import pytest
from lmms_eval.api.instance import Instance

from lmms_eval_stgridpool.requests import (
    Request,
    Tasks,
    command_line,
    in_video_order,
    is_padding,
    results_folder,
    video_key,
)


class Task:
    def __init__(self, args=None):
        self.args = args

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
    with pytest.raises(ValueError, match="asks without visuals: 2 arguments"):
        tasks.read(0, instance("loglikelihood", "", "choice"))


def test_a_request_can_travel():
    request = Tasks(DOCUMENTS).read(0, instance("generate_until", "Q", {}, lambda doc: [], 1, "t", "test"))
    assert pickle.loads(pickle.dumps(request)) == request  # noqa: S301


def test_a_task_without_visuals_is_text():
    tasks = Tasks(DOCUMENTS)
    request = tasks.read(0, instance("generate_until", "Q", {}, lambda doc: None, 1, "t", "test"))
    assert tasks.visuals(request) == []
    assert tasks.video_key(request) is None


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


def test_questions_about_one_video_follow_each_other():
    assert in_video_order(["a", "b", None, "a", None, "b", "c"]) == [0, 3, 1, 5, 2, 4, 6]
    assert in_video_order([]) == []


def test_only_paths_name_videos():
    assert video_key(["a.mp4", "b.mp4"]) == ("a.mp4", "b.mp4")
    assert video_key([]) is None
    assert video_key([object()]) is None


def test_padding_is_recognised():
    assert is_padding(instance("generate_until", __padding_only__=True))
    assert not is_padding(instance("generate_until"))


def test_the_results_folder_is_that_of_lmms_eval():
    arguments = Namespace(
        output_path="out", model="llava_video", model_args="pretrained=../models/llava-video,max_frames_num=8"
    )
    found = command_line([instance("generate_until", "Q", {}, Task(arguments).doc_to_visual, 1, "t", "test")])
    assert found is arguments
    assert results_folder(arguments) == Path("out/models__llava-video")
    assert results_folder(Namespace(output_path=None)) is None
    assert command_line([instance("generate_until", "Q", {}, Task().doc_to_visual, 1, "t", "test")]) is None
    assert results_folder(None) is None
