"""Questions in the words that lmms-eval uses for another of its models.

lmms-eval's task files have settings per model under ``lmms_eval_specific_kwargs``, which ``--model`` selects by name.
``llava_video`` therefore does not get the settings for ``llava_vid``, lmms-eval's own model for LLaVA-Video, and
``video_hf`` not those for ``qwen3_vl``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmms_eval.api.instance import Instance

PROMPT_STYLES = ("llava_vid", "llava_onevision", "qwen2_5_vl", "qwen3_vl")


def restyle(instance: Instance, row: Mapping[str, Any], style: str) -> bool:
    """Replace the question in `instance` with the wording that its task uses for the model `style`.

    lmms-eval logs the arguments of an instance, so its samples file shows the question that was asked. If the task has
    no settings for that model, the question stays as it is.

    Args:
        instance: A request, as the task created it.
        row: The dataset's row of the question.
        style: One of `PROMPT_STYLES`.

    Returns:
        Whether the task has settings for that model.

    Raises:
        ValueError: If the task asks in rounds, or its prompt does not end with the question.
    """
    context, _, find_visuals, *_ = instance.args
    if instance.request_type == "generate_until_multi_round":
        raise ValueError(f"prompt_style={style} does not support questions in rounds, as in task {instance.task_name}")
    task: Any = getattr(find_visuals, "__self__", None)  # the task that owns the method
    settings = getattr(task, "lmms_eval_specific_kwargs", None) or {}
    if not isinstance(settings.get(style), Mapping):
        return False
    plain, styled = task.doc_to_text(row), task.config.doc_to_text(row, settings[style])
    if context.endswith(styled):  # a request that is asked several times
        return True
    if not context.endswith(plain):
        raise ValueError(f"prompt_style={style}: the prompts of task {instance.task_name} do not end with the question")
    instance.arguments = (context[: len(context) - len(plain)] + styled, *instance.args[1:])
    return True
