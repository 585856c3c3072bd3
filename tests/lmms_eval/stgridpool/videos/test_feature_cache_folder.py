"""The cache's folder: what is evicted, what is left alone, and who else may use it meanwhile."""

import errno
import hashlib
import multiprocessing
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from lmms_eval_stgridpool.kept.paths import MARKER
from lmms_eval_stgridpool.videos.feature_cache import FeatureCache
from lmms_eval_stgridpool.videos.feature_file import VideoFeatures


def key(name):
    """A name as the cache gives them."""
    return hashlib.sha256(name.encode()).hexdigest()


A, B, C = map(key, "abc")


def sizes(folder):
    """Bytes of every file of features, whole or not."""
    found = []
    for file in [*folder.glob("*.safetensors"), *folder.glob("*.tmp")]:
        with suppress(FileNotFoundError):  # evicted in between
            found.append(file.stat().st_size)
    return found


def test_the_oldest_make_room(tmp_path, make_video):
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


def test_the_cache_in_a_checkpoints_folder_deletes_nothing_of_it(golden, tmp_path, make_video):
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


def test_only_entries_are_evicted_from_the_caches_own_folder(tmp_path, make_video):
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


def test_what_is_larger_than_the_cache_is_left_out(tmp_path, warnings, make_video):
    cache = FeatureCache(tmp_path, 2000, {})
    cache.add(A, make_video(frames=1))
    cache.add(B, make_video(frames=50))
    assert cache.get(A) is not None
    assert cache.get(B) is None
    assert "do not fit in a cache of 2000 bytes" in "".join(warnings)


def test_what_a_killed_process_left_behind_is_removed_when_it_is_old(cache, make_video):
    old, new = (cache.folder / f"{B}.{digit * 32}.tmp" for digit in "01")
    for file in (old, new):
        file.write_bytes(b"half")
    os.utime(old, (time.time() - 3601,) * 2)
    cache.add(A, make_video())
    assert {file.name for file in cache.folder.iterdir()} == {MARKER, ".lock", f"{A}.safetensors", new.name}


def test_what_is_evicted_while_it_is_read_is_missing_or_whole(cache, monkeypatch, make_video):
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


def test_fifos_and_dangling_links_neither_hang_nor_stop_it(cache, warnings, make_video):
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
def test_a_lock_that_is_not_one_is_said_and_not_waited_for(cache, warnings, make, make_video):
    make(cache.folder / ".lock")
    cache.add(A, make_video())
    assert cache.get(A) is None
    assert "features cannot be written" in "".join(warnings)
    assert not (cache.folder / "foreign").exists()


def test_many_may_share_the_folder(tmp_path, make_video):
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


def test_a_disk_that_is_full_for_a_moment_is_said_once_and_used_again(cache, monkeypatch, warnings, make_video):
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
