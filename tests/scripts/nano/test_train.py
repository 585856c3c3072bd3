"""Training writes a checkpoint that the ordinary loader takes, and goes on where it was interrupted."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from llava.model.builder import load_pretrained_model


@pytest.fixture(scope="module")
def short(nano, tmp_path_factory):
    """Settings of three steps of training."""
    schedule = nano("schedule")
    tower, answers = schedule.STAGES[0], schedule.STAGES[1]
    stages = (replace(tower, steps=1, clips=1), replace(answers, steps=2, clips=1, seconds=(4, 5)))
    return nano("train").Settings(tmp_path_factory.mktemp("short") / "run", "cpu", processes=1, seed=5, stages=stages)


@pytest.fixture(scope="module")
def trained(nano, short):
    """Weights after this training."""
    return train_in_this_process(nano, short)


@pytest.fixture
def settings(short, tmp_path):
    return replace(short, output=tmp_path / "run")


def train_in_this_process(nano, settings):
    nano("checkpoint").write_description(settings.output / "checkpoint")
    trainer = nano("train").Trainer(settings, rank=0)
    trainer.train()
    return load_file(settings.output / "checkpoint" / "model.safetensors")


def test_the_trained_folder_loads_as_any_checkpoint(short, trained):
    folder = str(short.output / "checkpoint")
    _, model, _, _ = load_pretrained_model(folder, None, None, device_map="cpu", torch_dtype="float32")
    name = "model.layers.4.mlp.gate_proj.weight"
    torch.testing.assert_close(dict(model.named_parameters())[name].data, trained[name].float())


def test_an_interrupted_training_ends_with_the_same_weights(nano, settings, trained):
    tower, answers = settings.stages
    train_in_this_process(nano, replace(settings, stages=(tower, replace(answers, steps=1))))

    again = train_in_this_process(nano, settings)
    assert trained.keys() == again.keys()
    assert all(torch.equal(trained[name], again[name]) for name in trained)


def test_learning_rates_fall_to_zero(nano):
    schedule = nano("schedule")
    last = schedule.STAGES[-1]
    assert last.rates(0) == last.learning_rate[:1] + last.tower_learning_rate[:1]
    assert last.rates(last.steps) == (0.0, 0.0)


@pytest.mark.parametrize("file", ["state.pt", "checkpoint/config.json"])
def test_what_others_trained_is_not_overwritten(nano, settings, file):
    path = settings.output / file
    path.parent.mkdir(parents=True)
    path.write_text("trained for weeks")
    with pytest.raises(FileExistsError, match="--output must be a folder for this purpose alone"):
        nano("train").train(settings)
    assert [found.read_text() for found in settings.output.rglob("*") if found.is_file()] == ["trained for weeks"]
