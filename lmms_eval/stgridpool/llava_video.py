"""The lmms-eval model ``llava_video``: LLaVA-Video, LLaVA-OneVision and NVILA with any compressor of visual tokens."""

from loguru import logger

from llava.loading import load_video_model
from llava.nvila.layout import nvila_folder
from lmms_eval_stgridpool.evaluated_model import EvaluatedModel
from lmms_eval_stgridpool.health.planning import Planner
from lmms_eval_stgridpool.run.cause import is_checked_by_script
from lmms_eval_stgridpool.run.context_length import too_long
from lmms_eval_stgridpool.run.llava_arguments import LlavaArguments
from stgridpool.checkpoint_files import checkpoint_folder, read_json
from stgridpool.model import VideoModel


class LlavaVideo(EvaluatedModel):
    """A checkpoint in LLaVA-NeXT's format, or one of NVILA, evaluated with a compressor.

    Args:
        **arguments: See `LlavaArguments`.

    Raises:
        ValueError: If an argument is unknown or out of its range.
    """

    arguments_class = LlavaArguments
    arguments: LlavaArguments

    def _load_model(self) -> VideoModel:
        folder = checkpoint_folder(self.arguments.pretrained)
        settings = read_json((nvila_folder(folder) or folder) / "config.json")
        arguments = self.arguments = self.arguments.for_checkpoint(settings)
        if self.rank == 0 and not is_checked_by_script():
            self._warn_of_own_length()
        return load_video_model(
            arguments.pretrained,
            model_name=arguments.model_name,
            conv_template=arguments.conv_template,
            add_time_instruction=arguments.add_time_instruction,
            device_map=self.placement.device_map,
            dtype=self.placement.dtype,
            attn_implementation=arguments.attn_implementation,
            overwrite_config=arguments.overwrites(),
            pool_head=arguments.pool_head,
            text_tower=arguments.text_tower,
        )

    def _warn_of_own_length(self) -> None:
        """Warn if the longest videos may not fit into the checkpoint's context with the compressor of the arguments."""
        own = self.arguments
        planner = Planner.of(own.pretrained, own.overwrites())
        found = too_long(planner, own.build_compressor(), own.compressor, own.most_frames)
        if found is not None:
            logger.warning(found.text)
