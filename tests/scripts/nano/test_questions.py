"""Questions have one right option, stand where the letter says, and read as lmms-eval writes them."""

from pathlib import Path

import pytest
import torch

TASK = Path(__file__).resolve().parents[3] / "custom_tasks" / "videomme_local.yaml"


@pytest.fixture(scope="module")
def questions(nano):
    return nano("questions")


@pytest.fixture(scope="module")
def clips(nano):
    return nano("world").plan_clips(800, 8, torch.Generator().manual_seed(3))


def options_of(questions, clips, kind, seed=0):
    generator = torch.Generator().manual_seed(seed)
    letters = torch.randint(4, (len(clips),), generator=generator)
    return questions.draw_options(kind, clips, letters, generator), letters


def test_options_differ_and_the_right_one_stands_at_its_letter(questions, clips):
    for kind in questions.QUESTION_TYPES:
        options, letters = options_of(questions, clips, kind)
        assert (options.sort(dim=1).values.diff(dim=1) > 0).all()
        assert torch.equal(options[torch.arange(len(clips)), letters], kind.answer(clips))
        assert options.max() < len(kind.words)


def test_the_four_colours_on_the_card_are_the_options_for_first_and_last(questions, clips):
    for kind in questions.QUESTION_TYPES:
        if kind.name in ("first", "last"):
            options, _ = options_of(questions, clips, kind)
            assert torch.equal(options.sort(dim=1).values, clips.card_colours.sort(dim=1).values)


def test_no_word_is_right_more_often_than_it_is_offered(questions, clips):
    for kind in questions.QUESTION_TYPES:
        options, _ = options_of(questions, clips, kind)
        offered = options.flatten().bincount(minlength=len(kind.words)) / 4
        right = kind.answer(clips).bincount(minlength=len(kind.words))
        assert ((right - offered).abs() < 60).all(), kind.name  # about five standard deviations


def test_task_types_are_those_that_video_mme_scores(questions):
    from lmms_eval.tasks.videomme.utils import TASK_CATEGORIES

    assert len({kind.task_type for kind in questions.QUESTION_TYPES} & set(TASK_CATEGORIES)) == 8


def test_the_text_is_that_of_the_local_task(questions):
    from lmms_eval.tasks.videomme.utils import videomme_doc_to_text

    line = next(line for line in TASK.read_text().splitlines() if "post_prompt" in line)
    closing = line.split('"')[1].replace("\\n", "\n")
    words = ["red", "green", "blue", "cyan"]
    document = {"question": "What colour is it?", "options": questions.option_lines(words)}
    expected = videomme_doc_to_text(document, {"post_prompt": closing})
    assert questions.ask("What colour is it?", words) == expected
