"""A feature cache, and features to put into it."""

import pytest
import torch
from loguru import logger

from lmms_eval_stgridpool.videos.feature_cache import FeatureCache
from lmms_eval_stgridpool.videos.feature_file import VideoFeatures


@pytest.fixture(scope="session")
def make_video():
    """Function that makes features (frames, 9, 8) which no other seed gives."""

    def make_video(seed=0, frames=4, dtype=torch.float32):
        generator = torch.Generator().manual_seed(seed)
        features = torch.randn(frames, 9, 8, generator=generator).to(dtype)
        return VideoFeatures(features, tuple(index / 3 for index in range(frames)), frames / 3)

    return make_video


@pytest.fixture
def cache(tmp_path):
    """A cache of at most 1 MB."""
    return FeatureCache(tmp_path / "cache", 1e6, {})


@pytest.fixture
def warnings():
    """What is logged, from then on."""
    seen = []
    handler = logger.add(lambda message: seen.append(str(message)), level="WARNING")
    yield seen
    logger.remove(handler)
