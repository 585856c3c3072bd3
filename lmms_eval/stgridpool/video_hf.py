"""The lmms-eval model ``video_hf``: native models of transformers with any compressor of visual tokens."""

from typing import Any

from lmms_eval_stgridpool.evaluated_model import EvaluatedModel
from lmms_eval_stgridpool.run.native_arguments import LMMS_EVAL, NativeArguments
from lmms_eval_stgridpool.videos.native_loader import NativeLoader
from lmms_eval_stgridpool.videos.stock_frames import stock_rule
from stgridpool.adapters.families import adapter_for
from stgridpool.adapters.frame_rules import FrameRule, OwnRule
from stgridpool.adapters.native_loading import load_native, set_pixels
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
        rule, lists = self._frame_rule(model, processor), adapter_for(model).lists_per_prompt
        recipe = NativeRecipe(processor, rule, self.placement.dtype, lists)
        return NativeVideoModel(model, recipe, arguments.system_prompt, arguments.positions)

    def _frame_rule(self, model: Any, processor: Any) -> FrameRule:
        arguments = self.arguments
        if arguments.sampling == LMMS_EVAL:
            return stock_rule(model.config.model_type, processor, arguments)
        set_pixels(processor, arguments.min_pixels, arguments.max_pixels)
        own = adapter_for(model).sampling
        return OwnRule(processor.video_processor, own, arguments.fps, arguments.max_frames_num)
