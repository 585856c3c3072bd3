"""The lmms-eval model ``video_hf``: native models of transformers with any compressor of visual tokens."""

from lmms_eval_stgridpool.evaluated_model import EvaluatedModel
from lmms_eval_stgridpool.run.native_arguments import NativeArguments
from lmms_eval_stgridpool.videos.native_loader import NativeLoader
from lmms_eval_stgridpool.videos.stock_frames import frame_rule
from stgridpool.adapters.families import adapter_for
from stgridpool.adapters.native_loading import load_native
from stgridpool.adapters.native_model import NativeVideoModel
from stgridpool.adapters.native_recipe import NativeRecipe
from stgridpool.model import VideoModel


class VideoHf(EvaluatedModel):
    """A checkpoint of a native model, evaluated with a compressor.

    A question is one turn of the user, videos first, in the words of the checkpoint's own chat template.

    Args:
        **arguments: See `NativeArguments`.

    Raises:
        ValueError: If an argument is unknown or out of its range.
    """

    arguments_class = NativeArguments
    loader_class = NativeLoader
    arguments: NativeArguments

    def _load_model(self) -> VideoModel:
        arguments = self.arguments
        model, processor = load_native(
            arguments.pretrained,
            device_map=self.placement.device_map,
            dtype=self.placement.dtype,
            attn_implementation=arguments.attn_implementation,
        )
        rule, lists = frame_rule(model, processor, arguments), adapter_for(model).lists_per_prompt
        recipe = NativeRecipe(processor, rule, self.placement.dtype, lists)
        options = arguments.system_prompt, arguments.positions, arguments.reuse_frames
        return NativeVideoModel(model, recipe, *options)
