import hashlib
import os

import pytest

from lmms_eval_stgridpool.kept import file_digest as module
from lmms_eval_stgridpool.kept.file_digest import file_digest


@pytest.fixture
def hashed(monkeypatch):
    """The names of the files that are really read, in order."""
    read, plain = [], hashlib.file_digest
    monkeypatch.setattr(
        module.hashlib, "file_digest", lambda file, name: read.append(os.path.basename(file.name)) or plain(file, name)
    )
    return read


def test_a_file_is_read_once_and_again_after_a_change(tmp_path, hashed):
    file, kept = tmp_path / "model.safetensors", tmp_path / "kept"
    file.write_bytes(b"abc")
    # SHA-256 of "abc" and of "abd"; the first is in FIPS 180-2, appendix B.1.
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert [file_digest(file, kept), file_digest(file, kept)] == [abc, abc]
    assert hashed == ["model.safetensors"]
    before = file.stat()
    file.write_bytes(b"abd")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # the same size and modification time
    assert file_digest(file, kept) == hashlib.sha256(b"abd").hexdigest() != abc
    assert len(hashed) == 2


def test_a_link_such_as_those_of_the_hubs_cache_is_the_file_that_it_names(tmp_path, hashed):
    file, link, kept = tmp_path / "blob", tmp_path / "model.safetensors", tmp_path / "kept"
    file.write_bytes(b"abc")
    link.symlink_to(file)
    assert file_digest(link, kept) == file_digest(file, kept)
    assert len(hashed) == 1


@pytest.mark.parametrize("damage", ["", "0" * 63, "é" * 64, "not a digest"])
def test_a_damaged_entry_is_replaced(tmp_path, hashed, damage):
    file, kept = tmp_path / "file", tmp_path / "kept"
    file.write_bytes(b"abc")
    right = file_digest(file, kept)
    (entry,) = kept.iterdir()
    entry.write_text(damage, encoding="utf-8")
    assert [file_digest(file, kept), file_digest(file, kept)] == [right, right]
    assert len(hashed) == 2


def test_without_a_folder_to_write_to_a_digest_costs_time_only(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "no_folder").write_text("a file stands here")
    assert file_digest(tmp_path / "file", tmp_path / "no_folder") == hashlib.sha256(b"abc").hexdigest()


def test_a_file_that_changes_while_it_is_read_is_not_remembered(tmp_path, monkeypatch):
    file, kept = tmp_path / "file", tmp_path / "kept"
    file.write_bytes(b"abc")
    plain = hashlib.file_digest

    def grows(opened, name):
        digest = plain(opened, name)
        file.write_bytes(b"abcd")
        return digest

    monkeypatch.setattr(module.hashlib, "file_digest", grows)
    file_digest(file, kept)
    monkeypatch.setattr(module.hashlib, "file_digest", plain)
    assert file_digest(file, kept) == hashlib.sha256(b"abcd").hexdigest()
