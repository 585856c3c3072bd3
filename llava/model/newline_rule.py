"""Where the videos of a checkpoint get newline tokens; nothing heavy is imported."""


def newline_position(merge_type: str, position: str) -> str:
    """Return one of `stgridpool.newlines.NEWLINE_POSITIONS`: the merge type of pictures may switch newlines off.

    Args:
        merge_type: The setting `mm_patch_merge_type`.
        position: The setting `mm_newline_position`.
    """
    if merge_type == "flat" or (position == "one_token" and "unpad" not in merge_type):
        return "no_token"
    return position
