"""Questions worded as lmms-eval words them for another of its models.

Task files of lmms-eval hold settings per model under ``lmms_eval_specific_kwargs``, chosen by the text of ``--model``.
Those for ``llava_vid``, lmms-eval's own model for LLaVA-Video, are therefore not those of ``llava_video``.
"""

from collections.abc import Mapping
from typing import Any

from lmms_eval.api.instance import Instance

PROMPT_STYLES = ("llava_vid",)


def restyle(instance: Instance, row: Any, style: str) -> bool:
    """Put the question of `row` into `instance` as its task words it for the model `style`.

    lmms-eval logs the arguments of an instance, so that its samples file shows what was asked. A task without settings
    for that model words its questions as lmms-eval does for every model that it does not know.

    Args:
        instance: A request, as the task made it.
        row: The dataset's row of the question.
        style: One of `PROMPT_STYLES`.

    Returns:
        Whether the task has settings for that model.

    Raises:
        ValueError: If the task asks in rounds, or its prompt does not end with the question.
    """
    context, _, find_visuals, *_ = instance.args
    if instance.request_type == "generate_until_multi_round":
        raise ValueError(f"prompt_style={style} does not go with rounds, in which task {instance.task_name} asks")
    task: Any = getattr(find_visuals, "__self__", None)  # the task that owns the method
    settings = getattr(task, "lmms_eval_specific_kwargs", None) or {}
    if not isinstance(settings.get(style), Mapping):
        return False
    plain, styled = task.doc_to_text(row), task.config.doc_to_text(row, settings[style])
    if context.endswith(styled):  # of a request that is asked several times
        return True
    if not context.endswith(plain):
        raise ValueError(f"prompt_style={style}: the prompts of task {instance.task_name} do not end with the question")
    instance.arguments = (context[: len(context) - len(plain)] + styled, *instance.args[1:])
    return True
