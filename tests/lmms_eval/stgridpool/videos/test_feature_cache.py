"""Features come back as they went in, or not at all; a run that finds them neither decodes nor encodes."""

import copy
import errno
import hashlib
import multiprocessing
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from loguru import logger
from PIL import Image
from safetensors.torch import save
from transformers import SiglipVisionModel

from llava.video import BACKENDS, VideoReadError
from llava.video_process import VideoReader
from lmms_eval_stgridpool.kept.identity import answer_key, video_identity
from lmms_eval_stgridpool.kept.paths import MARKER
from lmms_eval_stgridpool.run.arguments import Arguments
from lmms_eval_stgridpool.videos import feature_cache
from lmms_eval_stgridpool.videos.feature_cache import FeatureCache, feature_setup, open_feature_cache
from lmms_eval_stgridpool.videos.feature_file import VideoFeatures
from stgridpool import NoCompression
from stgridpool.evidence import (
    AttentionReceived,
    ClassAttention,
    FrameVectors,
    JointPatches,
    Need,
    PoolHeadAttention,
    Question,
    TowerKeys,
)
from stgridpool.timing import StageTimer


def key(name):
    """A name as the cache gives them."""
    return hashlib.sha256(name.encode()).hexdigest()


A, B, C = map(key, "abc")


def make_video(seed=0, frames=4, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(frames, 9, 8, generator=generator).to(dtype)
    return VideoFeatures(features, tuple(index / 3 for index in range(frames)), frames / 3)


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "cache", 1e6, {})


@pytest.fixture
def warnings():
    """What is logged, from then on."""
    seen = []
    handler = logger.add(lambda message: seen.append(str(message)), level="WARNING")
    yield seen
    logger.remove(handler)


def sizes(folder):
    """Bytes of every file of features, whole or not."""
    found = []
    for file in [*folder.glob("*.safetensors"), *folder.glob("*.tmp")]:
        with suppress(FileNotFoundError):  # evicted in between
            found.append(file.stat().st_size)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_features_come_back_bit_for_bit(cache, dtype):
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


def with_evidence(seed=0):
    """Evidence of three shapes beside the features."""
    video, generator = make_video(), torch.Generator().manual_seed(seed)
    shapes = {RECEIVED: (36,), KEYS: (36, 5), MEANS: (4, 8)}
    evidence = {need: torch.randn(shape, generator=generator) for need, shape in shapes.items()}
    return VideoFeatures(video.features, video.times, video.duration, evidence=evidence)


def test_evidence_comes_back_bit_for_bit(cache):
    video = with_evidence()
    cache.add(A, video)
    kept = cache.get(A, [MEANS, RECEIVED, KEYS])
    assert torch.equal(kept.features, video.features)
    assert list(kept.evidence) == [MEANS, RECEIVED, KEYS]
    assert all(torch.equal(kept.evidence[need], value) for need, value in video.evidence.items())


def test_an_entry_without_what_is_needed_is_no_hit(cache, warnings):
    cache.add(A, make_video())
    assert cache.get(A, [RECEIVED]) is None
    cache.add(B, with_evidence())
    assert cache.get(B, [AttentionReceived(-1)]) is None
    assert cache.get(B, [RECEIVED, Question()]) is None
    assert "AttentionReceived(layer=-1, joined=False)" in "".join(warnings)


def test_damaged_evidence_is_no_hit(cache):
    cache.add(A, with_evidence())
    [file] = cache.folder.glob("*.safetensors")
    whole = file.read_bytes()
    for position in range(0, len(whole), 11):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        file.write_bytes(flipped)
        assert cache.get(A, [RECEIVED, KEYS, MEANS]) is None


def test_evidence_that_is_not_finite_is_not_kept(cache):
    video = with_evidence()
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
def test_features_that_are_not_finite_are_not_kept(cache, value):
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
    arguments = Arguments(pretrained="x", max_frames_num=8)
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
        changed = Arguments(**{"pretrained": "x", "max_frames_num": 8} | change)
        assert feature_setup(changed, identity) != setup
    model = make_model().model
    model.language_model.config.mm_vision_select_layer = -5
    assert feature_setup(arguments, model.identity()) != setup
    assert feature_setup(Arguments(pretrained="x", max_frames_num=8, compressor="none"), identity) == setup


def test_the_attention_that_runs_counts_not_the_one_asked_for(make_model):
    """flash_attention_2 becomes sdpa where flash-attn is not installed."""
    setups = {}
    for asked in ("sdpa", "eager", "flash_attention_2"):
        arguments = Arguments(pretrained="x", attn_implementation=asked)
        model = make_model(attn_implementation=asked).model
        setups[asked] = feature_setup(arguments, model.identity())
    assert setups["sdpa"]["attention"] == "sdpa"
    assert setups["eager"]["attention"] == "eager"
    if find_spec("flash_attn") is None:
        assert setups["flash_attention_2"] == setups["sdpa"]


def test_other_code_or_versions_make_other_features(identity, monkeypatch):
    arguments = Arguments(pretrained="x")
    setup = feature_setup(arguments, identity)
    assert setup["versions"]["torch"] == version("torch")
    assert setup["versions"]["av"] == version("av")
    for name, other in (
        ("package_version", lambda package: "99" if package == "av" else version(package)),
        ("source_digest", lambda *sources: "other"),
    ):
        monkeypatch.setattr(feature_cache, name, other)
        assert feature_setup(arguments, identity) != setup
        monkeypatch.undo()


def test_an_offloaded_tower_is_refused():
    arguments = Arguments(pretrained="x", feature_cache="features")
    with pytest.raises(ValueError, match="feature_cache cannot be used while the vision tower is offloaded"):
        open_feature_cache(arguments, None)


def test_damage_is_detected_and_repaired(cache, warnings):
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


def test_features_under_another_name_are_not_taken(cache):
    cache.add(A, make_video())
    os.rename(cache.folder / f"{A}.safetensors", cache.folder / f"{B}.safetensors")
    assert cache.get(B) is None


def test_the_oldest_make_room(tmp_path):
    names = [key(str(number)) for number in range(6)]
    probe = FeatureCache(tmp_path / "probe", 1e9, {})
    probe.add(A, make_video())
    [size] = sizes(probe.folder)
    cache = FeatureCache(tmp_path, 3.5 * size, {})
    for number, name in enumerate(names):
        cache.add(name, make_video(number))
        os.utime(cache.folder / f"{name}.safetensors", ns=(0, number))
        if number == 3:
            cache.get(names[1])  # being read makes nothing younger
        assert sum(sizes(cache.folder)) <= 3.5 * size
    assert {file.stem for file in cache.folder.glob("*.safetensors")} == set(names[3:])


def everything_below(folder):
    """What every file and link below a folder holds."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            found[path] = os.readlink(path)
        elif path.is_file():
            found[path] = path.read_bytes()
    return found


def test_the_cache_in_a_checkpoints_folder_deletes_nothing_of_it(golden, tmp_path):
    checkpoint = shutil.copytree(golden / "llava" / "ckpt-video", tmp_path / "checkpoint")
    (checkpoint / "notes.tmp").write_text("mine")
    for file in checkpoint.iterdir():
        os.utime(file, ns=(0, 0))
    before = everything_below(checkpoint)
    cache = FeatureCache(checkpoint, 6000, {})
    for number in range(9):
        cache.add(key(str(number)), make_video(number))
    assert len(sizes(cache.folder)) < 9
    assert cache.folder == checkpoint / "stgridpool_features"
    assert before.items() <= everything_below(checkpoint).items()


def test_only_entries_are_evicted_from_the_caches_own_folder(tmp_path):
    cache = FeatureCache(tmp_path / "cache", 3000, {})
    (tmp_path / "elsewhere").write_bytes(bytes(9000))
    foreign = {
        "model.safetensors": save({"w": torch.ones(900)}),
        f"{key('weights')}.safetensors": save({"w": torch.ones(900)}),  # looks like an entry
        f"{key('text')}.safetensors": b"no features" * 99,
        "notes.tmp": b"mine",
        f"{A}.tmp": b"mine",
    }
    for name, content in foreign.items():
        (cache.folder / name).write_bytes(content)
    (cache.folder / f"{key('link')}.safetensors").symlink_to(tmp_path / "elsewhere")
    (cache.folder / f"{key('link')}.{'0' * 32}.tmp").symlink_to(tmp_path / "elsewhere")
    for path in [*cache.folder.iterdir(), tmp_path / "elsewhere"]:
        os.utime(path, ns=(0, 0), follow_symlinks=False)
    before = everything_below(tmp_path)
    for number in range(9):
        cache.add(key(str(number)), make_video(number, frames=2))
    assert cache.is_writable
    assert cache.get(key("8")) is not None
    assert cache.get(key("0")) is None
    assert before.items() <= everything_below(tmp_path).items()


def test_a_foreign_folder_of_the_caches_name_is_refused(tmp_path):
    (tmp_path / "stgridpool_features").mkdir()
    (tmp_path / "stgridpool_features" / "thesis.safetensors").write_text("mine")
    with pytest.raises(FileExistsError, match=r"must be a folder for this purpose alone.*such as thesis"):
        FeatureCache(tmp_path, 1e6, {})


@pytest.mark.parametrize("folder", ["", "  "])
def test_an_empty_path_is_not_the_working_directory(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="feature_cache must be a path, got an empty text"):
        FeatureCache(folder, 1e6, {})
    assert not list(tmp_path.iterdir())


def test_what_is_larger_than_the_cache_is_left_out(tmp_path, warnings):
    cache = FeatureCache(tmp_path, 2000, {})
    cache.add(A, make_video(frames=1))
    cache.add(B, make_video(frames=50))
    assert cache.get(A) is not None
    assert cache.get(B) is None
    assert "do not fit in a cache of 2000 bytes" in "".join(warnings)


def test_what_a_killed_process_left_behind_is_removed_when_it_is_old(cache):
    old, new = (cache.folder / f"{B}.{digit * 32}.tmp" for digit in "01")
    for file in (old, new):
        file.write_bytes(b"half")
    os.utime(old, (time.time() - 3601,) * 2)
    cache.add(A, make_video())
    assert {file.name for file in cache.folder.iterdir()} == {MARKER, ".lock", f"{A}.safetensors", new.name}


def test_what_is_evicted_while_it_is_read_is_missing_or_whole(cache, monkeypatch):
    """The file is gone at once after it was opened, or before; v0.1 opened it twice and ended the run."""
    video = make_video()
    real_open = os.open

    def open_and_evict(path, *rest):
        descriptor = real_open(path, *rest)
        if os.fspath(path).endswith(".safetensors"):
            os.unlink(path)
        return descriptor

    cache.add(A, video)
    monkeypatch.setattr(os, "open", open_and_evict)
    assert torch.equal(cache.get(A).features, video.features)
    monkeypatch.undo()
    assert cache.get(A) is None


def test_readers_survive_evictions_by_another_process(tmp_path):
    """The stress that ended runs of version 0.1: one process replaces entries as fast as it can, this one reads."""

    def video(number):
        return VideoFeatures(torch.full((9, 9, 8), float(number)), (0.0,), 1.0)

    def write():
        for step in range(400):
            cache.add(f"{step % 5:064x}", video(step % 5))

    cache, hits = FeatureCache(tmp_path, 12000, {}), 0
    writer = multiprocessing.get_context("fork").Process(target=write)
    writer.start()
    is_last = False
    while not is_last:
        is_last = writer.exitcode is not None
        for number in range(5):
            kept = cache.get(f"{number:064x}")
            if kept is not None:
                hits += 1
                assert torch.equal(kept.features, video(number).features)
    assert writer.exitcode == 0
    assert hits > 0


def test_fifos_and_dangling_links_neither_hang_nor_stop_it(cache, warnings):
    video = make_video()
    os.mkfifo(cache.folder / f"{A}.safetensors")
    (cache.folder / f"{B}.safetensors").symlink_to("nowhere")
    os.mkfifo(cache.folder / f"{C}.safetensors")
    os.mkfifo(cache.folder / f"{C}.{'0' * 32}.tmp")
    for name in (A, B):
        assert cache.get(name) is None
        cache.add(name, video)
        assert torch.equal(cache.get(name).features, video.features)
    assert cache.is_writable
    assert f"{A}.safetensors is not a regular file" in "".join(warnings)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to(path.parent / "foreign")])
def test_a_lock_that_is_none_is_said_and_not_waited_for(cache, warnings, make):
    make(cache.folder / ".lock")
    cache.add(A, make_video())
    assert cache.get(A) is None
    assert "features cannot be written" in "".join(warnings)
    assert not (cache.folder / "foreign").exists()


def test_many_may_share_the_folder(tmp_path):
    """Each thread opens the folder and its lock for itself, as a process does."""
    probe = FeatureCache(tmp_path, 1e9, {})
    probe.add(key("0"), make_video(0))
    folder, limit = probe.folder, 2.5 * sizes(probe.folder)[0]
    stop, largest = threading.Event(), []

    def watch():
        while not stop.is_set():
            largest.append(sum(sizes(folder)))

    def work(worker):
        cache, hits = FeatureCache(tmp_path, limit, {}), 0
        for step in range(60):
            seed = (worker + step) % 5
            kept = cache.get(key(str(seed)))
            if kept is None:
                cache.add(key(str(seed)), make_video(seed))
            else:
                hits += 1
                assert torch.equal(kept.features, make_video(seed).features)
        return cache.is_writable, hits

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(work, range(4)))
    stop.set()
    watcher.join()
    assert all(is_writable for is_writable, _ in outcomes)
    assert sum(hits for _, hits in outcomes) > 0
    assert max(largest) <= limit


def test_a_disk_that_is_full_for_a_moment_is_said_once_and_used_again(cache, monkeypatch, warnings):
    cache.add(A, make_video())

    def fail(self, data):
        with open(self, "wb") as file:
            file.write(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    cache.add(B, make_video())
    cache.add(C, make_video())
    assert not cache.is_writable
    assert "".join(warnings).count("features cannot be written") == 1
    assert "No space left on device" in "".join(warnings)
    assert {file.name for file in cache.folder.iterdir()} == {MARKER, ".lock", f"{A}.safetensors"}
    assert cache.get(A) is not None
    monkeypatch.undo()
    cache.add(C, make_video())
    assert cache.is_writable
    assert cache.get(C) is not None
    assert "".join(warnings).count("written to") == 2
    assert "are written to" in warnings[-1]


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

    need: Need

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
        model.model.compressor = Asking(ClassAttention())
    with pytest.raises(ValueError, match="load the model with the option pool_head"):
        model.model.compressor = Asking(FrameVectors("pool_head"))


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
        with pytest.raises(VideoReadError):
            model._answerer.encoder.encode([str(clips / name)], StageTimer("cpu"))
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


@pytest.mark.parametrize("value", [0, -1, "much", float("inf")])
def test_the_limit_must_be_a_size(value):
    with pytest.raises(ValueError, match="feature_cache_gb must be a number of gigabytes from 1e-06"):
        Arguments(pretrained="x", feature_cache_gb=value)
