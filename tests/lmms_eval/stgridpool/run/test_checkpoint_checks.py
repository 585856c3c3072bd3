"""What is said about a checkpoint that has to be downloaded; the hub is a stand-in."""

import json

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from lmms_eval_stgridpool.run import checkpoint_checks
from lmms_eval_stgridpool.run.checkpoint_checks import model_for, read_checkpoint_settings

NAME = "nobody/no-such-checkpoint"


@pytest.fixture
def hub(monkeypatch):
    """Function that sets what the hub does when it is asked for a file."""
    monkeypatch.setattr(checkpoint_checks, "HF_HUB_OFFLINE", False)

    def answer(result):
        def download(name, file, etag_timeout):
            assert (name, file) == (NAME, "config.json")
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)

    return answer


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RepositoryNotFoundError.__new__(RepositoryNotFoundError),
            "and the hub has none of that name: is it spelled ri",
        ),
        (GatedRepoError.__new__(GatedRepoError), f"and asks for consent: give it at hf.co/{NAME}, then hf auth login"),
        (
            OSError("no route to host"),
            r"and the hub does not give it \(no route to host\): name a folder, or download it",
        ),
    ],
)
def test_the_cause_is_named(hub, error, message):
    hub(error)
    with pytest.raises(ValueError, match=f"^{NAME} is no folder in .* and not in the hub's cache, {message}"):
        read_checkpoint_settings(NAME)


def test_the_settings_of_the_hub_say_which_model_runs_a_checkpoint(hub, tmp_path):
    settings = {"architectures": ["InternVLForConditionalGeneration"], "model_type": "internvl"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    hub(str(tmp_path / "config.json"))
    folder, found = read_checkpoint_settings(NAME)
    assert folder is None
    assert model_for(found, NAME) == "video_hf"


def test_a_checkpoint_with_a_part_in_the_cache_is_downloaded_further(hub, tmp_path, monkeypatch):
    """The check itself puts config.json there; a download that was stopped leaves more."""
    settings = {"architectures": ["InternVLForConditionalGeneration"], "model_type": "internvl"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    monkeypatch.setattr(checkpoint_checks, "local_folder", lambda _: tmp_path)
    hub(str(tmp_path / "config.json"))
    assert read_checkpoint_settings(NAME) == (None, settings)
    with pytest.raises(ValueError, match="holds no weights"):
        read_checkpoint_settings(str(tmp_path))
    monkeypatch.setattr(checkpoint_checks, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="holds no weights"):
        read_checkpoint_settings(NAME)
