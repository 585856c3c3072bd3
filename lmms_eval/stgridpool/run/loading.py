"""The checkpoint of a run, loaded as its arguments say."""

from llava.video_model import load_video_model
from lmms_eval_stgridpool.run.arguments import Arguments
from lmms_eval_stgridpool.run.placement import Placement
from stgridpool.model import VideoModel


def load_model(arguments: Arguments, placement: Placement) -> VideoModel:
    """Load the checkpoint onto the devices of this process.

    Args:
        arguments: Which checkpoint to load, and how.
        placement: Where to load it.
    """
    return load_video_model(
        arguments.pretrained,
        model_name=arguments.model_name,
        conv_template=arguments.conv_template,
        add_time_instruction=arguments.add_time_instruction,
        device_map=placement.device_map,
        dtype=placement.dtype,
        attn_implementation=arguments.attn_implementation,
        mm_newline_position=arguments.mm_newline_position,
        pool_head=arguments.pool_head,
        text_tower=arguments.text_tower,
    )
