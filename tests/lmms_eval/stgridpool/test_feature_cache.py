"""Features come back as they went in, or not at all; a run that finds them neither decodes nor encodes."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from loguru import logger
from PIL import Image

from llava.video import BACKENDS, VideoReadError
from lmms_eval_stgridpool import loading
from lmms_eval_stgridpool.arguments import Arguments
from lmms_eval_stgridpool.feature_cache import FeatureCache, VideoFeatures, feature_setup
from stgridpool.stage_timer import StageTimer


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
    assert cache.get("a") is None
    cache.add("a", video)
    kept = cache.get("a")
    assert kept.features.dtype == dtype
    assert torch.equal(kept.features.view(torch.uint8), video.features.view(torch.uint8))
    assert (kept.times, kept.duration) == (video.times, video.duration)
    assert kept.is_from_cache
    assert not video.is_from_cache


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
def tower(make_model):
    model = make_model().model
    return model.get_vision_tower(), model.config


def test_the_setup_tells_towers_and_frames_apart(tower):
    tower, config = tower
    arguments = Arguments(pretrained="x", max_frames_num=8)
    setup = feature_setup(arguments, tower, config)
    assert setup["tower"] == tower.name
    assert setup["dtype"] == "torch.float32"
    assert feature_setup(arguments, tower, config) == setup
    [other_backend, *_] = set(BACKENDS) - {arguments.video_decode_backend}
    for change in ({"max_frames_num": 9}, {"fps": 1}, {"force_sample": True}, {"video_decode_backend": other_backend}):
        assert feature_setup(Arguments(**{"pretrained": "x", "max_frames_num": 8} | change), tower, config) != setup
    other = SimpleNamespace(mm_vision_select_layer=-5, mm_vision_select_feature=config.mm_vision_select_feature)
    assert feature_setup(arguments, tower, other) != setup
    assert feature_setup(Arguments(pretrained="x", max_frames_num=8, compressor="none"), tower, config) == setup


def test_one_weight_makes_another_tower(tower):
    tower, config = tower
    arguments = Arguments(pretrained="x")
    before = feature_setup(arguments, tower, config)["weights"]
    weight = next(tower.vision_tower.parameters()).data.flatten()
    value = weight[3].item()
    weight[3] = value + 1
    changed = feature_setup(arguments, tower, config)["weights"]
    weight[3] = value
    assert changed != before
    assert feature_setup(arguments, tower, config)["weights"] == before


def test_an_offloaded_tower_is_refused(tower):
    _, config = tower
    offloaded = SimpleNamespace(vision_tower=torch.nn.Linear(2, 2, device="meta"), name="t", dtype=torch.float32)
    with pytest.raises(ValueError, match="feature_cache cannot be used while the vision tower is offloaded"):
        feature_setup(Arguments(pretrained="x"), offloaded, config)


def test_damage_is_detected_and_repaired(cache, warnings):
    video = make_video()
    cache.add("a", video)
    [file] = cache.folder.glob("*.safetensors")
    whole = file.read_bytes()
    damaged = [whole[:length] for length in (0, 5, 8, 100, len(whole) - 1)]
    for position in range(0, len(whole), 7):  # every part: length, header, times, numbers
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        damaged.append(bytes(flipped))
    for data in damaged:
        file.write_bytes(data)
        assert cache.get("a") is None
    assert "is damaged, the video is encoded anew" in "".join(warnings)
    cache.add("a", video)
    assert torch.equal(cache.get("a").features, video.features)


def test_features_under_another_name_are_not_taken(cache):
    cache.add("a", make_video())
    os.rename(cache.folder / "a.safetensors", cache.folder / "b.safetensors")
    assert cache.get("b") is None


def test_the_oldest_make_room(tmp_path):
    cache = FeatureCache(tmp_path, 1e9, {})
    cache.add("probe", make_video())
    [size] = sizes(tmp_path)
    (tmp_path / "probe.safetensors").unlink()
    cache = FeatureCache(tmp_path, 3.5 * size, {})
    for number in range(6):
        cache.add(f"{number}", make_video(number))
        os.utime(tmp_path / f"{number}.safetensors", ns=(0, number))
        if number == 3:
            cache.get("1")  # being read makes nothing younger
        assert sum(sizes(tmp_path)) <= 3.5 * size
    assert sorted(file.stem for file in tmp_path.glob("*.safetensors")) == ["3", "4", "5"]


def test_what_is_larger_than_the_cache_is_left_out(tmp_path, warnings):
    cache = FeatureCache(tmp_path, 2000, {})
    cache.add("small", make_video(frames=1))
    cache.add("large", make_video(frames=50))
    assert cache.get("large") is None
    assert cache.get("small") is not None
    assert "do not fit into a cache of 2000 bytes" in "".join(warnings)


def test_leftovers_of_killed_processes_are_removed(cache):
    (cache.folder / "b.tmp").write_bytes(b"half")
    cache.add("a", make_video())
    assert {file.name for file in cache.folder.iterdir()} == {".lock", "a.safetensors"}


def test_many_may_share_the_folder(tmp_path):
    """Each thread opens the folder and its lock for itself, as a process does."""
    FeatureCache(tmp_path, 1e9, {}).add("0", make_video(0))
    limit = 2.5 * sizes(tmp_path)[0]
    stop, largest = threading.Event(), []

    def watch():
        while not stop.is_set():
            largest.append(sum(sizes(tmp_path)))

    def work(worker):
        cache, hits = FeatureCache(tmp_path, limit, {}), 0
        for step in range(60):
            seed = (worker + step) % 5
            kept = cache.get(str(seed))
            if kept is None:
                cache.add(str(seed), make_video(seed))
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


def test_a_full_disk_is_reported_once(cache, monkeypatch, warnings):
    cache.add("a", make_video())

    def fail(self, data):
        with open(self, "wb") as file:
            file.write(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    cache.add("b", make_video())
    cache.add("c", make_video())
    assert "".join(warnings).count("features are no longer written") == 1
    assert "No space left on device" in "".join(warnings)
    assert {file.name for file in cache.folder.iterdir()} == {".lock", "a.safetensors"}
    assert cache.get("a") is not None


def answers(model, ask, names):
    documents = [{"visuals": [name], "gen_kwargs": {"max_new_tokens": 8}} for name in names for _ in range(2)]
    return [result.text for result in ask(model, "generate_until", documents)]


@pytest.fixture
def forbid(monkeypatch):
    """Function that makes decoding, and a model's tower, fail from then on."""

    def forbid(model):
        def fail(*arguments, **options):
            raise AssertionError("this was not to be called")

        monkeypatch.setattr(loading, "read_video_apart", fail)
        monkeypatch.setattr(model.model.get_vision_tower(), "forward", fail)

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
    assert torch.equal(other.inputs[0].embeds, one.inputs[0].embeds)
    assert other.clips == one.clips


def test_what_is_damaged_is_encoded_anew_and_replaced(make_model, ask, tmp_path):
    folder = tmp_path / "cache"
    expected = answers(make_model(feature_cache=str(folder)), ask, ["v0.mp4"])
    [file] = folder.glob("*.safetensors")
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
    assert not list((tmp_path / "cache").glob("*.safetensors"))


@pytest.mark.parametrize("value", [0, -1, "much", float("inf")])
def test_the_limit_must_be_a_size(value):
    with pytest.raises(ValueError, match="feature_cache_gb must be a number of gigabytes above 0"):
        Arguments(pretrained="x", feature_cache_gb=value)
