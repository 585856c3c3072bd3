"""What doctor finds in a checkpoint: the miniature, whole and damaged."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lmms_eval_stgridpool.health.weights import check_checkpoint
from native_models.families import save

MINIATURE = Path(__file__).resolve().parents[4] / "scripts" / "nano" / "checkpoint"


@pytest.fixture
def copy(tmp_path):
    return Path(shutil.copytree(MINIATURE, tmp_path / "copy"))


def change(folder, name, value):
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = value(tensors[name])
    save_file({key: tensor for key, tensor in tensors.items() if tensor is not None}, folder / "model.safetensors")


def findings(folder, reads_weights=True):
    advanced = []
    progress = (lambda title, total: lambda amount: advanced.append((amount, total))) if reads_weights else None
    found = {one.subject: one for one in check_checkpoint(str(folder), progress)}
    return found, advanced


def test_a_whole_nvila_checkpoint_is_ok(golden):
    """Its weights lie in the folders of its parts."""
    found, advanced = findings(golden / "nvila" / "ckpt-video")
    assert {one.state for one in found.values()} == {"ok"}
    assert "70 tensors agree" in found["checkpoint"].text
    assert sum(amount for amount, _ in advanced) == advanced[0][1]


def test_a_whole_checkpoint_is_ok():
    found, advanced = findings(MINIATURE)
    assert {name: one.state for name, one in found.items()} == dict.fromkeys(
        ("checkpoint", "tokenizer", "size", "weights"), "ok"
    )
    assert sum(amount for amount, _ in advanced) == advanced[0][1]  # the bar ends full
    assert "121 BF16" in found["size"].text
    assert "weights" not in findings(MINIATURE, reads_weights=False)[0]


def test_a_missing_weight_is_a_problem(copy):
    change(copy, "model.norm.weight", lambda tensor: None)
    found, _ = findings(copy)
    assert found["checkpoint"].state == "problem"
    assert "lacks weights (1): model.norm.weight" in found["checkpoint"].text


def test_weights_that_are_not_finite_are_a_problem(copy):
    change(copy, "model.norm.weight", lambda tensor: tensor * float("nan"))
    found, _ = findings(copy)
    assert found["weights"].state == "problem"
    assert "model.norm.weight" in found["weights"].text
    assert found["weights"].repair == "copy or download the checkpoint again"


def test_weights_that_overflow_in_float16_are_a_warning(copy):
    change(copy, "model.norm.weight", lambda tensor: torch.full_like(tensor, 1e6))
    found, _ = findings(copy)
    assert found["weights"].state == "warning"
    assert found["weights"].repair == "run with torch_dtype=bfloat16 or float32"


def test_a_contradicting_setting_is_a_problem(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"num_hidden_layers": config["num_hidden_layers"] + 1}))
    found, _ = findings(copy)
    assert found["checkpoint"].state == "problem"
    assert "num_hidden_layers" in found["checkpoint"].text


def test_a_tokenizer_without_files_is_a_problem(copy):
    for name in ("tokenizer.json", "vocab.json"):
        (copy / name).unlink()
    assert findings(copy)[0]["tokenizer"].state == "problem"


def test_a_folder_that_is_not_there_is_a_problem(tmp_path):
    found, _ = findings(tmp_path / "none")
    assert found["checkpoint"].state == "problem"
    assert "does not exist" in found["checkpoint"].text


def test_a_name_of_the_hub_is_not_downloaded():
    found, _ = findings("nobody/no-such-checkpoint")
    assert found["checkpoint"].state == "warning"
    assert found["checkpoint"].repair == "hf download nobody/no-such-checkpoint"


def test_a_model_that_is_too_large_is_a_warning(monkeypatch):
    monkeypatch.setattr("lmms_eval_stgridpool.health.weights.MEMORY_SHARE", 1e-6)
    found, _ = findings(MINIATURE, reads_weights=False)
    assert found["size"].state == "warning"
    assert "bfloat16" in found["size"].repair


def test_a_native_model_is_ok(tmp_path):
    save("qwen2_5_vl", tmp_path)
    found, _ = findings(tmp_path)
    assert {name: one.state for name, one in found.items()} == dict.fromkeys(
        ("checkpoint", "processor", "size", "weights"), "ok"
    )
    assert "a native qwen2_5_vl with " in found["checkpoint"].text
    for name in ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"):
        (tmp_path / name).unlink(missing_ok=True)
    assert findings(tmp_path)[0]["processor"].state == "problem"
    (tmp_path / "model.safetensors").unlink()
    assert findings(tmp_path)[0]["checkpoint"].state == "problem"
