"""Tokens and indices that prompts and inputs share."""

IGNORE_INDEX = -100  # label of a position that the loss skips
IMAGE_TOKEN_INDEX = -200  # stands in input_ids where an image or a video goes
DEFAULT_IMAGE_TOKEN = "<image>"
DEFAULT_IMAGE_PATCH_TOKEN = "<im_patch>"
DEFAULT_IM_START_TOKEN = "<im_start>"
DEFAULT_IM_END_TOKEN = "<im_end>"
