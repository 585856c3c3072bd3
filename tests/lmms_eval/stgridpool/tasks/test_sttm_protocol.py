"""STTM's prompt, worked out by hand from its description, and its parser, equal to the released one."""

import json

import pytest

from lmms_eval_stgridpool.tasks import sttm_protocol
from lmms_eval_stgridpool.tasks.sttm_protocol import parse_answer

LETTERS = {"videomme_vnbench_mlvu": "ABCD", "nextqa": "ABCDE", "egoschema": "ABCDE", "longvideobench": "ABCDEF"}
INSTRUCTION = (
    "Select the best answer to the following multiple-choice question based on the video and the subtitles. "
    "Respond with only the letter ({}) of the correct option."
)


@pytest.mark.parametrize("parser", LETTERS)
def test_every_golden_answer_is_parsed_as_released(golden, parser):
    cases = json.loads((golden / "sttm" / "answer_parsing.json").read_text())
    assert len(cases) == 35
    for case in cases:
        letter = parse_answer(case["text"], LETTERS[parser])
        number = "ABCDEF".index(letter) if letter else ""
        parsed = {"egoschema": str(number), "longvideobench": number}.get(parser, letter)
        assert parsed == case[parser], case["text"]


def test_more_than_ten_words_need_a_letter_up_to_e():
    assert parse_answer("it is F " + "word " * 7, "ABCDEF") == "F"
    assert parse_answer("it is F " + "word " * 8, "ABCDEF") == ""
    assert parse_answer("The best answer is F " + "word " * 9, "ABCDEF") == "F"  # what leads in does not count
    assert parse_answer("it is F " + "word " * 8 + "E", "ABCDEF") == "F"


NEXTQA = {"question": " why ", "a0": "rain", "a1": " food ", "a2": "dog", "a3": "fun", "a4": "sun"}
LONGVIDEOBENCH = {"question": "How many?", "option0": "1", "option1": "2", "option2": "3", "option3": "N/A"}
PROMPTS = {
    "videomme": (
        {"question": "How many?", "options": ["A. 1.", "B. 2.", "C. 3.", "D. 4."]},
        "A, B, C, or D",
        "How many?\nA. 1.\nB. 2.\nC. 3.\nD. 4.",
    ),
    "vnbench": (
        {"question": "Which?", "options": ["cat", "dog", "owl", "fox"]},
        "A, B, C, or D",
        "Which?\nA. cat.\nB. dog.\nC. owl.\nD. fox.",
    ),
    "mlvu": (
        {"question": "Who\n(if any)?\n(A) Ann\n(B)Bob (B)\n(C) Cy\n(D) D.\n"},
        "A, B, C, or D",
        "Who\n(if any)?\nA. Ann\nB. Bob (B)\nC. Cy\nD. D.",
    ),
    "nextqa": (NEXTQA, "A, B, C, D, or E", "why\nA. rain\nB. food\nC. dog\nD. fun\nE. sun"),
    "egoschema": (
        {"question": "What?", "option": ["A. run", "B. sit", "C. eat", "D. cut", "E. dig"]},
        "A, B, C, D, or E",
        "What?\nA. run\nB. sit\nC. eat\nD. cut\nE. dig",
    ),
    "longvideobench": (LONGVIDEOBENCH | {"option4": "N/A"}, "A, B, or C", "How many?\nA. 1\nB. 2\nC. 3"),
}


@pytest.mark.parametrize("benchmark", PROMPTS)
def test_all_benchmarks_share_one_prompt(benchmark):
    document, letters, question = PROMPTS[benchmark]
    text = getattr(sttm_protocol, f"{benchmark}_doc_to_text")(document, {"post_prompt": "not used"})
    assert text == f"{INSTRUCTION.format(letters)}\n{question}\nThe best answer is:"


def test_a_question_of_mlvu_without_options_is_refused():
    with pytest.raises(ValueError, match=r"no options such as '\(A\) ...' in the MLVU question 'Who\?'"):
        sttm_protocol.mlvu_doc_to_text({"question": "Who?"}, {})


DOCUMENTS = {
    "videomme": {"answer": "B", "videoID": "v", "duration": "long", "task_type": "OCR Problems"},
    "vnbench": {"gt_option": "B", "video": "v", "type": "ret_edit1", "question": "Which?"},
    "mlvu": {"answer": "B", "video_name": "v", "task_type": "ego"},
    "nextqa": {"answer": 1, "video": "v", "type": "CW"},
    "egoschema": {"answer": "1", "video_idx": "v"},
    "longvideobench": {"correct_choice": 1, "video_path": "v", "duration_group": 60, "question_category": "S2E"},
}
GROUPS = {
    "videomme": ["accuracy_long", "accuracy_OCR_Problems"],
    "vnbench": ["accuracy_ret_edit1", "vnbench_circular"],
    "mlvu": ["accuracy_ego", "mlvu_percetion_score"],
    "nextqa": ["accuracy_CW"],
    "egoschema": [],
    "longvideobench": ["accuracy_60", "accuracy_S2E"],
}


@pytest.mark.parametrize("benchmark", DOCUMENTS)
@pytest.mark.parametrize(("answer", "score"), [("Option: B", 1), ("Cannot be determined", 0), ("no idea", 0), ("", 0)])
def test_an_answer_counts_for_all_and_for_its_groups(benchmark, answer, score):
    results = getattr(sttm_protocol, f"{benchmark}_process_results")(DOCUMENTS[benchmark], [answer])
    results.pop("answers_in_submission", None)
    assert list(results) == ["accuracy", *GROUPS[benchmark]]
    for facts in results.values():
        assert (facts["score"], facts["videoID"]) == (score, "v")


@pytest.mark.parametrize(("answer", "index"), [("A", 0), ("E.", 4), ("none", -1), ("", -1)])
def test_a_submission_holds_indices(answer, index):
    results = sttm_protocol.egoschema_process_results(DOCUMENTS["egoschema"], [answer])
    assert results["answers_in_submission"] == {"v": index}
