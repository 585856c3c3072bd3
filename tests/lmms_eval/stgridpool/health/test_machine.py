"""What doctor finds on this machine."""

import shutil
from pathlib import Path
from types import SimpleNamespace

from packaging.specifiers import SpecifierSet

from lmms_eval_stgridpool.health import machine
from lmms_eval_stgridpool.health.machine import check_devices, check_disks, check_plug_in, check_readers, check_versions


def test_versions_are_compared_with_tested_ones():
    wanted = {"torch": "==0.1", "av": ">=15", "no-such-package": "==2", "decord": "==0.6.0"}
    found = {one.subject: one for one in check_versions({name: SpecifierSet(one) for name, one in wanted.items()})}
    assert found["torch"].state == "warning"
    assert found["torch"].repair == "if a run fails: pip install 'torch==0.1'"
    assert found["av"].state == "ok"
    assert (found["no-such-package"].state, found["no-such-package"].text) == ("problem", "not installed")
    assert found["no-such-package"].repair == "pip install 'no-such-package==2'"


def test_decord_is_optional(monkeypatch):
    monkeypatch.setattr(machine, "package_version", lambda name: None)
    [found] = check_versions({"decord": SpecifierSet("==0.6.0")})
    assert found.state == "ok"


def test_the_plug_in_is_found():
    assert {one.state for one in check_plug_in()} == {"ok"}


def test_a_missing_plug_in_and_another_llava_are_problems(monkeypatch):
    def other():
        raise ImportError("another project's package")

    monkeypatch.setattr(machine, "entry_points", lambda group: [])
    monkeypatch.setattr(machine, "check_llava", other)
    monkeypatch.setattr(machine, "unrecognised", lambda: ["lmms_eval.evaluator.something"])
    assert [(one.subject, one.state) for one in check_plug_in()] == [
        ("plug-in", "problem"),
        ("llava", "problem"),
        ("lmms_eval", "warning"),
    ]


def test_devices(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda index: (70e9, 80e9))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda index: "A GPU")
    gpu, attention = check_devices()
    assert (gpu.subject, gpu.text) == ("cuda:0", "A GPU, 70 of 80 GB free")
    assert "sdpa, eager" in attention.text
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    device, _ = check_devices()
    assert device.state == "warning"


def test_a_decoder_that_pyav_lacks_is_named(monkeypatch):
    assert [one.state for one in check_readers()] == ["ok"]
    monkeypatch.setattr(machine, "DECODERS", ("h264", "no_such_codec"))
    [found] = check_readers()
    assert found.state == "warning"
    assert "cannot decode no_such_codec" in found.text


def test_disks_are_those_of_the_nearest_folder(tmp_path, monkeypatch):
    free = {"bytes": 0.5e9}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free["bytes"]))
    [found] = check_disks([("results", tmp_path / "not" / "there")])
    assert (found.subject, found.state) == ("disk: results", "problem")
    assert str(tmp_path) in found.repair
    for free["bytes"], state in ((5e9, "warning"), (50e9, "ok")):
        assert [one.state for one in check_disks([("results", Path("/"))])] == [state]
