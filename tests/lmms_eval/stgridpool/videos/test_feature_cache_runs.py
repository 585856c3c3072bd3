"""A run that finds features in the cache neither decodes nor encodes."""

import copy
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import SiglipVisionModel

from llava.video import VideoReadError
from llava.video_process import VideoReader
from lmms_eval_stgridpool.videos.feature_file import VideoFeatures
from stgridpool import NoCompression
from stgridpool.evidence import (
    AttentionReceived,
    ClassAttention,
    FrameVectors,
    Need,
    PoolHeadAttention,
    Question,
)
from stgridpool.timing import StageTimer

RECEIVED, MEANS = AttentionReceived(-2), FrameVectors("mean")


def answers(model, ask, names):
    documents = [{"visuals": [name], "gen_kwargs": {"max_new_tokens": 8}} for name in names for _ in range(2)]
    return [result.text for result in ask(model, "generate_until", documents)]


@pytest.fixture
def forbid(monkeypatch):
    """Function that makes decoding, and a model's tower, fail from then on."""

    def forbid(model):
        def fail(*arguments, **options):
            raise AssertionError("this was not to be called")

        monkeypatch.setattr(VideoReader, "read", fail)
        monkeypatch.setattr(model.model.language_model.get_vision_tower(), "forward", fail)

    return forbid


@pytest.mark.parametrize("prefetch", [0, 2])
def test_another_compressor_neither_decodes_nor_encodes(make_model, ask, clips, tmp_path, forbid, prefetch):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(3):
        Image.new("RGB", (20, 10), (index * 50, 0, 0)).save(pictures / f"{index}.png")
    names = ["v0.mp4", "v2.mp4", str(pictures)]
    settings = {"add_time_instruction": True, "prefetch": prefetch}
    cached = settings | {"feature_cache": str(tmp_path / "cache")}

    first = make_model(compressor="st_gridpool", **cached)
    assert answers(first, ask, names) == answers(make_model(compressor="st_gridpool", **settings), ask, names)
    assert (first._sums.totals["feature_cache_hits"], first._sums.totals["feature_cache_misses"]) == (0, 3)

    expected = make_model(compressor="bilinear", **settings)
    expected_answers = answers(expected, ask, names)
    second = make_model(compressor="bilinear", **cached)
    with torch.inference_mode():
        one = expected._answerer.encoder.encode([str(clips / "v2.mp4")], StageTimer("cpu"))
    forbid(second)
    assert answers(second, ask, names) == expected_answers
    assert (second._sums.totals["feature_cache_hits"], second._sums.totals["feature_cache_misses"]) == (3, 0)
    assert {"read_features", "projector", "compress"} <= set(second._sums.seconds)
    assert not {"decode", "preprocess", "vision"} & set(second._sums.seconds)
    with torch.inference_mode():
        other = second._answerer.encoder.encode([str(clips / "v2.mp4")], StageTimer("cpu"))
    assert torch.equal(other.videos[0].features, one.videos[0].features)
    assert other.media.clips == one.media.clips


def asking(*needs):
    """Something that needs evidence, as compressors do."""
    return SimpleNamespace(needs=frozenset(needs))


@dataclass(frozen=True)
class Asking(NoCompression):
    """Needs evidence, and keeps every token."""

    need: Need = RECEIVED

    @property
    def needs(self):
        return frozenset({self.need})


@pytest.mark.parametrize("prefetch", [0, 2])
def test_evidence_is_computed_once_and_kept(make_model, clips, tmp_path, forbid, prefetch):
    video, settings = clips / "v2.mp4", {"prefetch": prefetch, "feature_cache": str(tmp_path / "cache")}

    def features(model, *compressors):
        model._ask_tower(compressors)
        model._loader.expect([video])
        with torch.inference_mode():
            return model.encoder.features([video], StageTimer("cpu"))[0]

    first = make_model(**settings)
    plain = features(first)
    made = features(first, asking(RECEIVED, Question()), asking(RECEIVED, MEANS))
    assert not made.is_from_cache
    assert set(made.evidence) == {RECEIVED, MEANS}
    assert torch.equal(made.features, plain.features)
    assert len(made.evidence[RECEIVED]) == plain.features[..., 0].numel()
    second = make_model(**settings)
    forbid(second)
    kept = features(second, asking(MEANS, RECEIVED))
    assert kept.is_from_cache
    assert all(torch.equal(kept.evidence[need], value) for need, value in made.evidence.items())
    assert features(second).evidence == {}
    with pytest.raises(AssertionError, match="this was not to be called"):
        features(second, asking(RECEIVED))


def test_what_the_tower_cannot_give_is_refused_before_any_video(make_model):
    model = make_model()
    with pytest.raises(ValueError, match=r"ClassAttention.*this model offers"):
        model.model.compressor = Asking(need=ClassAttention())
    with pytest.raises(ValueError, match="load the model with the option pool_head"):
        model.model.compressor = Asking(need=FrameVectors("pool_head"))


def test_the_pooling_head_is_loaded_and_told_apart(make_model, tmp_path):
    config = copy.deepcopy(make_model().model.language_model.get_vision_tower().vision_tower.config)
    config.num_hidden_layers, config.vision_use_head = config.num_hidden_layers + 1, True
    for name in ("one", "other"):
        SiglipVisionModel(config).save_pretrained(tmp_path / name)
    settings = {"feature_cache": str(tmp_path / "cache")}
    models = [make_model(**settings, pool_head=str(tmp_path / name)) for name in ("one", "other")]
    models[0]._ask_tower([asking(PoolHeadAttention())])
    assert models[0]._loader.needs == [PoolHeadAttention()]
    video = tmp_path / "v.mp4"
    video.write_bytes(b"1234")
    caches = [model.encoder.cache for model in (make_model(**settings), *models)]
    assert len({cache.name(video, [RECEIVED]) for cache in caches}) == 1
    assert len({cache.name(video, [PoolHeadAttention()]) for cache in caches}) == 3
    assert models[0]._tower != models[1]._tower


def test_what_is_damaged_is_encoded_anew_and_replaced(make_model, ask, tmp_path):
    folder = tmp_path / "cache"
    expected = answers(make_model(feature_cache=str(folder)), ask, ["v0.mp4"])
    [file] = folder.rglob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    for hits in (0, 1):
        model = make_model(feature_cache=str(folder))
        assert answers(model, ask, ["v0.mp4"]) == expected
        assert model._sums.totals["feature_cache_hits"] == hits


def test_a_video_that_cannot_be_read_leaves_nothing(make_model, clips, tmp_path):
    model = make_model(feature_cache=str(tmp_path / "cache"))
    for name in ("broken.mp4", "missing.mp4"):
        with pytest.raises(VideoReadError, match=f"cannot read video .*{name}"):
            model._answerer.encoder.encode([str(clips / name)], StageTimer("cpu"))
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_features_serve_after_the_videos_are_gone_if_that_is_allowed(make_model, ask, clips, tmp_path):
    cached = {"feature_cache": str(tmp_path / "cache"), "max_frames_num": 4}
    video = shutil.copy(clips / "v0.mp4", tmp_path / "v.mp4")
    first = answers(make_model(compressor="nsp", **cached), ask, [str(video)])
    Path(video).unlink()
    allowed = cached | {"features_of_missing_videos": True}
    model = make_model(compressor="nsp", **allowed)
    assert answers(model, ask, [str(video)]) == first
    assert model._sums.totals["feature_cache_hits"] == 1
    assert model._setup["features_of_missing_videos"] is True
    missing = {"v": cached, "w": allowed, "v of other frames": allowed | {"max_frames_num": 3}}
    for name, settings in missing.items():
        path = str(tmp_path / f"{name[0]}.mp4")
        [result] = ask(make_model(compressor="nsp", **settings), "generate_until", [{"visuals": [path]}])
        reason = result.token_counts.failure
        assert reason is not None
        assert "no such file" in reason
        assert ("the feature cache has no such features of it" in reason) == (settings is not cached)


def test_an_answer_from_other_features_of_a_missing_video_is_not_resumed(make_model, ask, tmp_path):
    allowed = {"feature_cache": str(tmp_path / "cache"), "features_of_missing_videos": True}
    settings = allowed | {"resume_dir": str(tmp_path / "answers"), "compressor": "nsp"}
    video, documents = tmp_path / "v.mp4", [{"visuals": [str(tmp_path / "v.mp4")]}]
    resumed = []
    for seed in (0, 0, 1):
        model = make_model(**settings)
        cache, tower = model.encoder.cache, model.model.language_model.get_vision_tower()
        features = torch.full((3, tower.num_patches, tower.hidden_size), float(seed))
        name = hashlib.sha256(str(seed).encode()).hexdigest()
        cache.add(name, VideoFeatures(features, (0.0, 1.0, 2.0), 3.0))
        cache.remember(name, video)
        assert ask(model, "generate_until", documents)[0].token_counts.failure is None
        resumed.append(model._sums.resumed_requests)
    assert resumed == [0, 1, 0]


def test_without_a_cache_nothing_serves_for_a_missing_video(make_model):
    with pytest.raises(ValueError, match="features_of_missing_videos needs the cache that has them"):
        make_model(features_of_missing_videos=True)
