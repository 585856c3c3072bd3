"""VNBench's prompt and its two metrics, worked out by hand."""

import pytest

from lmms_eval_stgridpool.tasks.vnbench import aggregate_accuracy, aggregate_circular, doc_to_text, process_results


def tries(video, answers):
    """Results of four tries; the right letter of try i is the i-th."""
    documents = [
        {
            "video": video,
            "question": "Which?",
            "options": ["cat", "dog", "owl", "fox"],
            "gt_option": letter,
            "try": number,
            "type": "ret_insert1",
        }
        for number, letter in enumerate("ABCD")
    ]
    return [
        process_results(document, [answer])["vnbench_accuracy"]
        for document, answer in zip(documents, answers, strict=True)
    ]


def test_the_prompt_is_that_of_video_mme():
    document = {"question": "Which animal?", "options": ["cat", "dog", "owl", "fox"]}
    lines = doc_to_text(document, {"post_prompt": "Answer."}).split("\n")
    assert lines[0].startswith("Select the best answer to the following multiple-choice question")
    assert lines[1:] == ["Which animal?", "A. cat", "B. dog", "C. owl", "D. fox", "Answer."]


def test_accuracy_counts_tries_and_circular_counts_needles():
    right = tries("a.mp4", ["A", "B.", "(C)", "The answer is D"])
    partly = tries("b.mp4", ["A", "A", "A", ""])
    assert [result["score"] for result in right] == [1, 1, 1, 1]
    assert [result["score"] for result in partly] == [1, 0, 0, 0]
    assert aggregate_accuracy(right + partly) == pytest.approx(62.5)
    assert aggregate_circular(right + partly) == 50
    assert aggregate_circular(partly) == 0
    assert partly[3]["pred_answer"] == ""
