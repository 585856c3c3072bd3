import pytest

from lmms_eval_stgridpool.answers.generation_settings import GenerationSettings
from lmms_eval_stgridpool.answers.stopping import cut

GREEDY = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "num_beams": 1, "max_new_tokens": 1024}
SAMPLING = {"do_sample": True, "temperature": 1.0, "top_p": None, "num_beams": 1, "max_new_tokens": 1024}


@pytest.mark.parametrize(
    ("gen_kwargs", "expected"),
    [
        ({}, GREEDY),
        (
            {"max_new_tokens": 16, "temperature": 0, "top_p": 1.0, "do_sample": False, "until": ["\n\n"]},
            GREEDY | {"max_new_tokens": 16},
        ),
        ({"temperature": 0.2, "top_p": 0.9}, SAMPLING | {"temperature": 0.2, "top_p": 0.9}),
        ({"do_sample": True}, SAMPLING),
        ({"do_sample": True, "temperature": 0}, GREEDY),
        ({"do_sample": False, "temperature": 0.7, "num_beams": 3}, GREEDY | {"num_beams": 3}),
    ],
)
def test_a_tasks_settings_are_respected_and_left_as_they_are(gen_kwargs, expected):
    before = dict(gen_kwargs)
    assert GenerationSettings.from_task(gen_kwargs).for_model() == expected
    assert gen_kwargs == before


@pytest.mark.parametrize(("until", "expected"), [(None, ()), ("x", ("x",)), (["a", ""], ("a",))])
def test_until_is_a_text_or_a_list(until, expected):
    assert GenerationSettings.from_task({"until": until}).until == expected


def test_answers_end_before_the_first_stop_text():
    assert cut("\n\n A. \n\nBecause", ["\n\n", "cause"]) == "A."
    assert cut("A. Because", ["x"]) == "A. Because"
    assert cut("stop here", ["stop"]) == ""
