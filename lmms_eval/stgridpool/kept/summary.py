"""What a run says at its end: a line each for the compressor, frames, tokens and resumed answers."""

from collections.abc import Mapping
from typing import Any


def summary(record: Mapping[str, Any]) -> list[str]:
    """Sum up a run in lines.

    Args:
        record: The record of the run, see `run_record`.
    """
    resumed = record["resumed_requests"]
    return [
        f"compressor: {record['compressor'] or 'none acted, as no video was shown'}",
        *_videos(record),
        f"resumed answers: {resumed} of {record['requests'] + resumed}",
    ]


def _videos(record: Mapping[str, Any]) -> list[str]:
    videos = record["videos_encoded"]
    if not videos:
        return ["frames: none, as no video was encoded", "tokens: none"]
    share = record["retention_total"].get("last_layer")
    kept = "" if share is None else f"; {100 * share:.1f} % of the checkpoint's own in the last layer"
    return [
        f"frames: {record['frames']} of {videos} videos, {record['frames'] / videos:.1f} per video",
        f"tokens: {record['visual_tokens'] / videos:.1f} visual and {record['newline_tokens'] / videos:.1f} newline "
        f"tokens per video{kept}",
    ]
