"""What lmms-eval reads when it starts: the names of our models and where their classes are."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest


def manifests() -> list["ModelManifest"]:
    """The models of this plug-in, for the entry-point group ``lmms_eval.models``.

    lmms-eval is imported here and not at the top: it calls this function while its own ``models`` package loads.
    """
    from lmms_eval.models.registry_v2 import ModelManifest  # noqa: PLC0415

    return [ModelManifest(model_id="llava_video", simple_class_path="lmms_eval_stgridpool.llava_video.LlavaVideo")]
