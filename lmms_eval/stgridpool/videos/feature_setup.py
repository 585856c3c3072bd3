"""Everything but the video that features depend on, and the cache that the arguments of a run name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import llava
from lmms_eval_stgridpool.kept.identity import source_digest
from lmms_eval_stgridpool.run.arguments import Arguments
from lmms_eval_stgridpool.run.versions import package_version
from lmms_eval_stgridpool.videos.feature_cache import FeatureCache
from stgridpool import adapters, distinct_frames
from stgridpool.algorithms import patch_attention

FORMAT = 4  # raise this when the format of entries changes
PACKAGES = ("torch", "torchvision", "transformers", "open_clip_torch", "av", "decord", "pillow")
"""Packages whose versions features depend on."""
PARTS = ("pool_head", "text_tower")
"""Parts that `missing_part` may name. Entries depend on them only if they have evidence from them."""


def open_feature_cache(arguments: Arguments, identity: Mapping[str, Any] | None) -> FeatureCache | None:
    """Open the cache that the arguments name; None if they name none.

    Args:
        arguments: See `feature_cache` and `feature_cache_gb`.
        identity: See `VideoModel.identity`.

    Raises:
        OSError: If the folder cannot be created, or has files that no cache wrote.
        ValueError: If the tower's weights are offloaded.
    """
    if arguments.feature_cache is None:
        return None
    if identity is None:
        raise ValueError("feature_cache cannot be used while the vision tower is offloaded")
    setup = feature_setup(arguments, identity)
    parts = {name: identity[name] for name in PARTS}
    return FeatureCache(arguments.feature_cache, arguments.feature_cache_gb * 1e9, setup, parts)


def feature_setup(arguments: Arguments, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Collect everything except the video that features depend on: sampling, vision tower, and the code involved.

    All weights of the tower count, because towers of the same name may have been trained further. Only our code in
    ``llava``, the adapters, evidence and the code that loads videos count, so features stay valid when compressors
    change.

    Args:
        arguments: How videos are read.
        identity: See `VideoModel.identity`; everything but `PARTS` is used.
    """
    own = [Path(__file__).with_name(name) for name in ("prefetch.py", "native_loader.py", "stock_frames.py")]
    own += [Path(str(module.__file__)) for module in (patch_attention, distinct_frames)]
    sources = [Path(llava.__path__[0]), Path(adapters.__path__[0]), *own]
    return {
        "format": FORMAT,
        "versions": {name: package_version(name) for name in PACKAGES},
        "source": source_digest(*sources),
        "frames": arguments.frame_options(),
        "video_decode_backend": arguments.video_decode_backend,
        "sampling": arguments.sampling,
        "damaged_videos": arguments.damaged_videos,
        "deterministic": arguments.deterministic and arguments.fixed_vision_batch_size(),
        **{name: value for name, value in identity.items() if name not in PARTS},
    }
