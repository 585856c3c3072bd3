from argparse import Namespace
from pathlib import Path

import pytest
from lmms_eval.api.instance import Instance

from lmms_eval_stgridpool.requests import (
    as_request,
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
    visual = Task().doc_to_visual
    generation = as_request(5, instance("generate_until", "Q", {"until": "x"}, visual, 1, "t", "test"), DOCUMENTS)
    assert (generation.position, generation.context, generation.extra) == (5, "Q", ({"until": "x"},))
    assert generation.visuals() == ["a.mp4"]
    fixed = as_request(0, instance("loglikelihood", "Q", " B", visual, 1, "t", "test"), DOCUMENTS)
    assert fixed.extra == (" B",)
    from_document = instance("loglikelihood", "Q", lambda doc: doc["answer"], visual, 1, "t", "test")
    assert as_request(0, from_document, DOCUMENTS).extra == ("B",)
    rounds = instance("generate_until_multi_round", "Q", {}, visual, len, 1, "t", "test")
    assert as_request(0, rounds, DOCUMENTS).extra == ({}, len)
    with pytest.raises(ValueError, match="asks without visuals: 2 arguments"):
        as_request(0, instance("loglikelihood", "", "choice"), DOCUMENTS)


def test_a_task_without_visuals_is_text():
    request = as_request(0, instance("generate_until", "Q", {}, lambda doc: None, 1, "t", "test"), DOCUMENTS)
    assert request.visuals() == []
    assert request.video_key() is None


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
