"""What is said about a checkpoint that has to be downloaded; the hub is a stand-in."""

import json
import shutil

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from lmms_eval_stgridpool.run import check_command, checkpoint_checks
from lmms_eval_stgridpool.run.checkpoint_checks import SlowHubError, model_for, read_checkpoint_settings
from lmms_eval_stgridpool.run.checks import CheckedModel
from lmms_eval_stgridpool.run.sweep_checks import Compared

NAME = "nobody/no-such-checkpoint"


@pytest.fixture
def hub(monkeypatch):
    """Function that sets what the hub does when it is asked for a file."""
    seen = []
    monkeypatch.setattr(checkpoint_checks, "HF_HUB_OFFLINE", False)

    def answer(result):
        def look(url, timeout):
            assert url.endswith(f"/{NAME}/resolve/main/config.json")
            seen.append(timeout)
            if isinstance(result, Exception):
                raise result

        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", look)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda name, file, etag_timeout: result)
        return seen

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
    with pytest.raises(ValueError, match=f"^{NAME} is not a folder in .* and not in the hub's cache, {message}"):
        read_checkpoint_settings(NAME)


def error_of_the_client(cause):
    """An error as the hub's client raises it: around that of its library, and Python's own."""
    error = HfHubHTTPError.__bases__[0]("timed out")
    error.__cause__ = RuntimeError()
    error.__cause__.__context__ = cause
    return error


def test_a_slow_answer_is_not_a_refusal(hub):
    seen = hub(error_of_the_client(TimeoutError()))
    with pytest.raises(SlowHubError, match=r"and the hub has not answered in 30 seconds$"):
        read_checkpoint_settings(NAME)
    given = {"pretrained": NAME, "compressor": "none", "max_frames_num": 10_000}
    checked = CheckedModel.of(given, "video_hf")
    assert (checked.settings, checked.arguments.MODEL) == (None, "video_hf")
    [warning] = checked.warnings
    assert warning.endswith("has not answered in 2 seconds: it is not checked, and video_hf is to run it")
    assert seen == [30, 2]
    with pytest.raises(SlowHubError) as refusal:
        CheckedModel.of(given)  # which model runs it is not guessed
    assert seen == [30, 2, 30]
    assert str(refusal.value).endswith(
        "and the hub has not answered in 30 seconds: try again, or name the model: "
        '-- --model llava_video (stgridpool eval: --lmms-eval "--model llava_video") or '
        '-- --model video_hf (stgridpool eval: --lmms-eval "--model video_hf")'
    )


def test_a_comparison_waits_for_a_slow_hub(hub):
    """Its commands cannot be told which model runs the checkpoint, so that nothing may be guessed."""
    seen = hub(error_of_the_client(TimeoutError()))
    with pytest.raises(SlowHubError, match=r"and the hub has not answered in 30 seconds$"):
        Compared(("nsp",), f"pretrained={NAME},max_pixels=501760").check_model()
    assert seen == [30]


def test_a_network_that_is_not_there_is_named(hub):
    hub(error_of_the_client(ConnectionRefusedError()))
    with pytest.raises(ValueError, match="and the hub does not give it"):
        CheckedModel.of({"pretrained": NAME})


def test_one_name_is_checked_for_the_script_and_again_for_lmms_eval(hub, tmp_path, monkeypatch):
    """The first check leaves a folder in the hub's cache that holds config.json alone."""
    cached = tmp_path / "cached"
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["X"], "model_type": "internvl"}))
    hub(str(cached / "config.json"))
    monkeypatch.setattr(checkpoint_checks, "local_folder", lambda _: cached if cached.exists() else None)
    monkeypatch.delenv("RANK", raising=False)
    (tmp_path / "quiz.yaml").write_text("task: quiz\ndataset_path: owner/quiz\n")

    def look(url, timeout):
        cached.mkdir(exist_ok=True)
        shutil.copy(tmp_path / "config.json", cached)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", look)
    words = [f"--include_path={tmp_path}", "quiz", NAME, "none", "max_frames_num=8"]
    _, model, task, folder, *_ = check_command.check("evaluate.sh", words)
    assert (model, task, folder) == ("video_hf", "quiz", str(tmp_path))
    assert cached.is_dir()
    given = f"pretrained={NAME},compressor=none,max_frames_num=8"
    check_command.check_command_line(
        ["--model", model, "--model_args", given, "--tasks", task, "--include_path", folder]
    )


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
