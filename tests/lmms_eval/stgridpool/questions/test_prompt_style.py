"""Questions as lmms-eval words them for its own llava_vid, from its own task files."""

from pathlib import Path
from types import SimpleNamespace

import lmms_eval.tasks
import pytest
import yaml
from lmms_eval.api.instance import Instance
from lmms_eval.tasks.videomme.utils import videomme_doc_to_text
from loguru import logger

from lmms_eval_stgridpool.questions.requests import Tasks
from lmms_eval_stgridpool.run.llava_arguments import LlavaArguments

ROW = {"question": "How many?", "options": ["A. 1", "B. 2", "C. 3", "D. 4"], "videoID": "v"}
FOLDER = Path(lmms_eval.tasks.__file__).parent / "videomme"
CUSTOM = Path(__file__).resolve().parents[4] / "custom_tasks"


def settings(path):
    lines = [line for line in path.read_text().splitlines() if "!function" not in line]
    return yaml.safe_load("\n".join(lines))["lmms_eval_specific_kwargs"]


class Task:
    """As lmms-eval's own: the settings of a model that it knows replace all others, else the default ones are added."""

    def __init__(self, path, doc_to_text=videomme_doc_to_text, model_name="llava_video"):
        kwargs = settings(path)
        self.config = SimpleNamespace(doc_to_text=doc_to_text)
        self.lmms_eval_specific_kwargs = kwargs.get(model_name) or kwargs | kwargs["default"]

    def doc_to_text(self, doc):
        return self.config.doc_to_text(doc, self.lmms_eval_specific_kwargs)

    def doc_to_visual(self, doc):
        return [doc["videoID"]]

    def instance(self, before="", kind="generate_until"):
        arguments = (before + self.doc_to_text(ROW), {}, self.doc_to_visual, 0, "t", "test")
        return Instance(kind, arguments, 0, {"task": "t", "doc_id": 0, "repeats": 1})


def tasks(style="llava_vid"):
    return Tasks({"t": {"test": [ROW]}}, prompt_style=style)


@pytest.mark.parametrize("path", [FOLDER / "videomme.yaml", CUSTOM / "videomme_local.yaml"], ids=lambda path: path.stem)
def test_the_last_line_is_that_of_llava_vid(path):
    task = Task(path)
    own, stock = task.instance(), Task(FOLDER / "videomme.yaml", model_name="llava_vid").instance()
    assert (
        tasks(None).read(0, own).context.endswith("\nAnswer with the option's letter from the given choices directly.")
    )
    found = tasks().read(0, own)
    assert found.context == stock.args[0]
    assert found.context.endswith("D. 4\nThe best answer is:")
    assert own.args[0] == found.context  # what lmms-eval logs
    assert tasks().read(0, own) == found  # asked again


def test_subtitles_are_those_of_llava_vid():
    def count(doc, lmms_eval_specific_kwargs):
        return f"subtitles at {lmms_eval_specific_kwargs['frame_num']} positions"

    task = Task(FOLDER / "videomme_w_subtitle.yaml", count)
    assert task.instance().args[0] == "subtitles at 32 positions"
    assert tasks().read(0, task.instance("Examples. ")).context == "Examples. subtitles at 768 positions"


def test_a_task_without_such_settings_asks_as_ever():
    task, reader, messages = Task(CUSTOM / "mlvu_dev_local.yaml", lambda doc, kwargs: doc["question"]), tasks(), []
    handler = logger.add(messages.append, level="WARNING", format="{message}")
    try:
        assert {reader.read(0, task.instance()).context for _ in range(3)} == {"How many?"}
    finally:
        logger.remove(handler)
    assert messages == ["task t has no settings for prompt_style=llava_vid: wording unchanged\n"]


def test_prompts_that_cannot_be_worded_anew_are_refused():
    task = Task(FOLDER / "videomme.yaml")
    changed = task.instance()
    changed.arguments = (changed.args[0] + " Please.", *changed.args[1:])
    with pytest.raises(ValueError, match="prompt_style=llava_vid: the prompts of task t do not end with the question"):
        tasks().read(0, changed)
    rounds = task.instance(kind="generate_until_multi_round")
    rounds.arguments = (*rounds.args[:3], len, *rounds.args[3:])
    with pytest.raises(ValueError, match="does not support questions in rounds, as in task t"):
        tasks().read(0, rounds)


def test_other_styles_are_refused():
    with pytest.raises(ValueError, match="prompt_style cannot be 'llava_video', did you mean 'llava_vid'"):
        LlavaArguments(pretrained="x", prompt_style="llava_video")
