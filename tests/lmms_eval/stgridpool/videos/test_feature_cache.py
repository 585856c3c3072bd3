"""Features come back as they went in, or not at all, under a name of all that decides them."""

import hashlib
import os
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from llava.video import BACKENDS
from lmms_eval_stgridpool.kept.identity import answer_key, video_identity
from lmms_eval_stgridpool.run.llava_arguments import LlavaArguments
from lmms_eval_stgridpool.videos import feature_setup as module
from lmms_eval_stgridpool.videos.feature_cache import FeatureCache
from lmms_eval_stgridpool.videos.feature_file import VideoFeatures
from lmms_eval_stgridpool.videos.feature_setup import feature_setup, open_feature_cache
from stgridpool.evidence import (
    AttentionReceived,
    FrameVectors,
    JointPatches,
    PoolHeadAttention,
    Question,
    TowerKeys,
)


def key(name):
    """A name as the cache gives them."""
    return hashlib.sha256(name.encode()).hexdigest()


A, B, C = map(key, "abc")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_features_come_back_bit_for_bit(cache, dtype, make_video):
    video = make_video(dtype=dtype)
    assert cache.get(A) is None
    cache.add(A, video)
    kept = cache.get(A)
    assert kept.features.dtype == dtype
    assert torch.equal(kept.features.view(torch.uint8), video.features.view(torch.uint8))
    assert (kept.times, kept.duration) == (video.times, video.duration)
    assert kept.is_from_cache
    assert not video.is_from_cache


RECEIVED, KEYS, MEANS = AttentionReceived(-2), TowerKeys(), FrameVectors("mean")


@pytest.fixture
def with_evidence(make_video):
    """Evidence of three shapes beside the features."""
    video, generator = make_video(), torch.Generator().manual_seed(0)
    shapes = {RECEIVED: (36,), KEYS: (36, 5), MEANS: (4, 8)}
    evidence = {need: torch.randn(shape, generator=generator) for need, shape in shapes.items()}
    return VideoFeatures(video.features, video.times, video.duration, evidence=evidence)


def test_evidence_comes_back_bit_for_bit(cache, with_evidence):
    video = with_evidence
    cache.add(A, video)
    kept = cache.get(A, [MEANS, RECEIVED, KEYS])
    assert torch.equal(kept.features, video.features)
    assert list(kept.evidence) == [MEANS, RECEIVED, KEYS]
    assert all(torch.equal(kept.evidence[need], value) for need, value in video.evidence.items())


def test_an_entry_without_what_is_needed_is_not_a_hit(cache, warnings, make_video, with_evidence):
    cache.add(A, make_video())
    assert cache.get(A, [RECEIVED]) is None
    cache.add(B, with_evidence)
    assert cache.get(B, [AttentionReceived(-1)]) is None
    assert cache.get(B, [RECEIVED, Question()]) is None
    assert "AttentionReceived(layer=-1, joined=False)" in "".join(warnings)


def test_damaged_evidence_is_not_a_hit(cache, with_evidence):
    cache.add(A, with_evidence)
    [file] = cache.folder.glob("*.safetensors")
    whole = file.read_bytes()
    for position in range(0, len(whole), 11):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        file.write_bytes(flipped)
        assert cache.get(A, [RECEIVED, KEYS, MEANS]) is None


def test_evidence_that_is_not_finite_is_not_kept(cache, with_evidence):
    video = with_evidence
    video.evidence[KEYS][3, 2] = float("nan")
    cache.add(A, video)
    assert cache.get(A) is None


def test_needs_are_part_of_the_name(tmp_path):
    video = tmp_path / "v.mp4"
    video.write_bytes(b"1234")
    parts = [{"pool_head": "1", "text_tower": "1"}, {"pool_head": "2", "text_tower": "1"}]
    parts.append({"pool_head": "1", "text_tower": "2"})
    one, other, third = (FeatureCache(tmp_path / "cache", 1e6, {"dtype": "float16"}, some) for some in parts)
    plain = answer_key({"setup": {"dtype": "float16"}, "files": video_identity(video)})  # as before there was evidence
    assert one.name(video) == one.name(video, ()) == plain
    assert (
        one.name(video, [RECEIVED, KEYS])
        == one.name(video, {KEYS: 1, RECEIVED: 2})
        == other.name(video, [KEYS, RECEIVED])
    )
    needs = [(), [RECEIVED], [KEYS], [RECEIVED, KEYS], [AttentionReceived(-1)], [PoolHeadAttention()]]
    names = {one.name(video, some) for some in needs}
    assert len(names) == len(needs)
    for need in (PoolHeadAttention(), FrameVectors("pool_head")):
        assert one.name(video, [need]) == third.name(video, [need]) != other.name(video, [need])
    assert (
        one.name(video, [JointPatches()]) == other.name(video, [JointPatches()]) != third.name(video, [JointPatches()])
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_not_kept(cache, value, make_video):
    video = make_video(dtype=torch.float16)
    video.features[2, 3, 4] = value
    cache.add(A, video)
    assert cache.get(A) is None


def test_a_changed_file_has_another_name(tmp_path):
    cache = FeatureCache(tmp_path / "cache", 1e6, {"dtype": "float16"})
    video = tmp_path / "v.mp4"
    video.write_bytes(b"1234")
    os.utime(video, ns=(0, 10**9))
    name = cache.name(video)
    assert cache.name(video) == name
    (tmp_path / "link.mp4").symlink_to(video)
    assert cache.name(tmp_path / "link.mp4") == name
    assert FeatureCache(tmp_path / "cache", 1e6, {"dtype": "float32"}).name(video) != name
    os.utime(video, ns=(0, 10**9 + 1))
    later = cache.name(video)
    video.write_bytes(b"12345")
    os.utime(video, ns=(0, 10**9))
    longer = cache.name(video)
    video.rename(tmp_path / "w.mp4")
    assert len({name, later, longer, cache.name(tmp_path / "w.mp4")}) == 4


def test_a_folder_of_pictures_is_known_by_its_pictures(tmp_path):
    cache = FeatureCache(tmp_path / "cache", 1e6, {})
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "1.jpg").write_bytes(b"1")
    name = cache.name(folder)
    os.utime(folder, ns=(0, 0))
    assert cache.name(folder) == name
    os.utime(folder / "1.jpg", ns=(0, 0))
    assert cache.name(folder) != name


@pytest.fixture(scope="module")
def identity(make_model):
    return make_model().model.identity()


def test_the_setup_tells_towers_and_frames_apart(identity, make_model):
    arguments = LlavaArguments(pretrained="x", max_frames_num=8)
    setup = feature_setup(arguments, identity)
    assert setup["tower"] == make_model().model.language_model.get_vision_tower().name
    assert setup["dtype"] == "torch.float32"
    assert feature_setup(arguments, make_model().model.identity()) == setup
    assert feature_setup(arguments, {**identity, "weights": "2"}) != setup
    [other_backend, *_] = set(BACKENDS) - {arguments.video_decode_backend}
    for change in (
        {"max_frames_num": 9},
        {"fps": 1},
        {"force_sample": True},
        {"video_decode_backend": other_backend},
        {"deterministic": True},
    ):
        changed = LlavaArguments(**{"pretrained": "x", "max_frames_num": 8} | change)
        assert feature_setup(changed, identity) != setup
    model = make_model().model
    model.language_model.config.mm_vision_select_layer = -5
    assert feature_setup(arguments, model.identity()) != setup
    assert feature_setup(LlavaArguments(pretrained="x", max_frames_num=8, compressor="none"), identity) == setup


def test_the_attention_that_runs_counts_not_the_one_asked_for(make_model):
    """flash_attention_2 becomes sdpa where flash-attn is not installed."""
    setups = {}
    for asked in ("sdpa", "eager", "flash_attention_2"):
        arguments = LlavaArguments(pretrained="x", attn_implementation=asked)
        model = make_model(attn_implementation=asked).model
        setups[asked] = feature_setup(arguments, model.identity())
    assert setups["sdpa"]["attention"] == "sdpa"
    assert setups["eager"]["attention"] == "eager"
    if find_spec("flash_attn") is None:
        assert setups["flash_attention_2"] == setups["sdpa"]


def test_other_code_or_versions_make_other_features(identity, monkeypatch):
    arguments = LlavaArguments(pretrained="x")
    setup = feature_setup(arguments, identity)
    assert setup["versions"]["torch"] == version("torch")
    assert setup["versions"]["av"] == version("av")
    for name, other in (
        ("package_version", lambda package: "99" if package == "av" else version(package)),
        ("source_digest", lambda *sources: "other"),
    ):
        monkeypatch.setattr(module, name, other)
        assert feature_setup(arguments, identity) != setup
        monkeypatch.undo()


def test_an_offloaded_tower_is_refused():
    arguments = LlavaArguments(pretrained="x", feature_cache="features")
    with pytest.raises(ValueError, match="feature_cache cannot be used while the vision tower is offloaded"):
        open_feature_cache(arguments, None)


def test_damage_is_detected_and_repaired(cache, warnings, make_video):
    video = make_video()
    cache.add(A, video)
    [file] = cache.folder.glob("*.safetensors")
    whole = file.read_bytes()
    damaged = [whole[:length] for length in (0, 5, 8, 100, len(whole) - 1)]
    for position in range(0, len(whole), 7):  # every part: length, header, times, numbers
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        damaged.append(bytes(flipped))
    for data in damaged:
        file.write_bytes(data)
        assert cache.get(A) is None
    assert "cannot be used, so the video is encoded again" in "".join(warnings)
    cache.add(A, video)
    assert torch.equal(cache.get(A).features, video.features)


def test_features_under_another_name_are_not_taken(cache, make_video):
    cache.add(A, make_video())
    os.rename(cache.folder / f"{A}.safetensors", cache.folder / f"{B}.safetensors")
    assert cache.get(B) is None


@pytest.mark.parametrize("value", [0, -1, "much", float("inf")])
def test_the_limit_must_be_a_size(value):
    with pytest.raises(ValueError, match="feature_cache_gb must be a number of gigabytes from 1e-06"):
        LlavaArguments(pretrained="x", feature_cache_gb=value)


def test_a_video_that_is_gone_is_known_by_its_path(cache, make_video, tmp_path, monkeypatch):
    video = tmp_path / "v.mp4"
    names = []
    for content in (b"1234", b"12345"):  # the file was replaced once
        video.write_bytes(content)
        names.append(cache.name(video))
        cache.add(names[-1], make_video(len(names)))
        cache.remember(names[-1], video)
        assert cache.newest(video) == names[-1]
    video.unlink()
    monkeypatch.chdir(tmp_path)
    assert cache.newest(video) == cache.newest(Path("v.mp4")) == names[1] != names[0]
    assert torch.equal(cache.get(names[1]).features, make_video(2).features)
    assert cache.newest(tmp_path / "w.mp4") is None
    assert cache.newest(video, [RECEIVED]) is None
    assert FeatureCache(tmp_path / "cache", 1e6, {"dtype": "float16"}).newest(video) is None


@pytest.mark.parametrize("damage", ["", "../../secret", "0" * 64, "\xe9" * 64])
def test_a_damaged_pointer_or_one_to_an_evicted_entry_names_nothing(cache, make_video, tmp_path, damage):
    video = tmp_path / "v.mp4"
    cache.remember(A, video)  # no such entry
    assert cache.newest(video) is None
    cache.add(A, make_video())
    cache.remember(A, video)
    [pointer] = cache.folder.glob("*.newest")
    pointer.write_text(damage, encoding="latin-1")
    assert cache.newest(video) is None


def test_features_of_a_video_that_is_gone_outlive_the_code_that_made_them(make_video, tmp_path, warnings):
    def cache(**setup):
        return FeatureCache(tmp_path / "cache", 1e6, {"dtype": "float16", "source": "1", "versions": {}} | setup)

    video = tmp_path / "v.mp4"
    before = cache()
    before.add(A, make_video())
    before.remember(A, video)
    assert before.newest(video) == A
    assert not warnings
    later = cache(source="2", versions={"torch": "9"})
    assert [later.newest(video), later.newest(video)] == [A, A]
    [warning] = warnings
    assert f"features of missing videos, such as {video}, were made by other versions of the code" in warning
    assert cache(dtype="float32").newest(video) is None
    later.add(B, make_video(1))
    later.remember(B, video)
    assert later.newest(video) == before.newest(video) == B
