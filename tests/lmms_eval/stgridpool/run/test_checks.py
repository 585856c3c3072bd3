"""Typical mistakes, and the last line that `stgridpool eval` prints about each, before anything is loaded."""

import json
import shutil
from pathlib import Path

import pytest
from datasets import Dataset

from lmms_eval_stgridpool.run.checks import check_run

MINIATURE = str(Path(__file__).resolve().parents[4] / "scripts" / "nano" / "checkpoint")
RIGHT = f"pretrained={MINIATURE},compressor=nsp"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with the table of Video-MME, and checkpoints that are none."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "data" / "videomme").mkdir(parents=True)
    Dataset.from_list([{"videoID": "v0"}]).to_parquet(folder / "data" / "videomme" / "test-00000-of-00001.parquet")
    (folder / "empty").mkdir()
    shutil.copytree(MINIATURE, folder / "native")
    config = json.loads((folder / "native" / "config.json").read_text())
    (folder / "native" / "config.json").write_text(json.dumps(config | {"architectures": ["Qwen2VL"]}))
    (folder / "file.safetensors").touch()
    (folder / "clips.csv").write_text("video,qestion\na.mp4,What?\n")
    return folder


@pytest.fixture(autouse=True)
def _in_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


MISTAKES = [
    # task and its data
    ("videome_local", RIGHT, "there is no task 'videome_local', did you mean 'videomme_local'?"),
    ("videomme_local,mlvu", RIGHT, "there is no task 'mlvu', did you mean"),
    ("mlvu_dev_local", RIGHT, "mlvu_dev_local reads its table from ./data/mlvu_dev, and there is no such folder in"),
    ("mvbench_local", RIGHT, "mvbench_local_action_antonym reads its table from ./data/mvbench, and there is no such"),
    ("clips.csv", RIGHT, "clips.csv has no column 'question', did you mean 'qestion'? Available: video, qestion"),
    ("my_videos", RIGHT, "my_videos: there is no table ./data/my_videos (working directory: "),
    # checkpoint
    ("videomme_local", "pretrained=/no/such/folder", "/no/such/folder does not exist: pass the folder of a checkpoint"),
    ("videomme_local", "pretrained=file.safetensors", "file.safetensors is a file: pass the folder of the checkpoint"),
    ("videomme_local", "pretrained=empty", "empty holds no config.json: copy or download it again"),
    ("videomme_local", "pretrained=native", "native is not a LLaVA checkpoint on Qwen2: native/config.json must have"),
    ("videomme_local", "pretrained=LLaVA-Video-7B", "LLaVA-Video-7B is no folder in"),
    ("videomme_local", "pretrained=", "pretrained must be a path, got an empty text; is it a shell variable"),
    ("videomme_local", "compressor=nsp", "llava_video needs pretrained=FOLDER_OR_NAME in --model_args"),
    # arguments of the model
    ("videomme_local", f"{RIGHT},max_frame_num=8", "llava_video has no argument 'max_frame_num', did you mean 'max_f"),
    ("videomme_local", f"{RIGHT},max_frames_num=0", "max_frames_num must be a whole number from 1 to 100000, got 0"),
    ("videomme_local", f"{RIGHT},conv_template=qwen_15", "conv_template cannot be 'qwen_15', did you mean 'qwen_1_5'?"),
    ("videomme_local", f"{RIGHT},torch_dtype=fp8", "torch_dtype cannot be 'fp8'"),
    ("videomme_local", f"{RIGHT},device=cuda:97", "there is no device cuda:97: torch sees"),
    ("videomme_local", f"{RIGHT},fps=1,fps=2", "fps is given twice in --model_args: leave one out"),
    ("videomme_local", f"{RIGHT},max_frames_num", "--model_args must be NAME=VALUE,NAME=VALUE, got 'max_frames_num'"),
    # compressor and its options
    ("videomme_local", f"pretrained={MINIATURE},compressor=st_gridpol", "there is no compressor 'st_gridpol', did you"),
    ("videomme_local", f'{RIGHT},compressor_args={{"kernel":3}}', "nsp has no option 'kernel', did you mean 'kernel_s"),
    ("videomme_local", f'{RIGHT},compressor_args={{"kernel_size":3', "--model_args: a quote, brace or bracket is not"),
    ("videomme_local", f"{RIGHT},compressor_args={{kernel_size:3}}", "compressor_args must be JSON, got '{kernel_size"),
    ("videomme_local", f"pretrained={MINIATURE},compressor=sttm+nsp", "STTM("),
]


@pytest.mark.parametrize(("task", "model_args", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_named_before_anything_is_loaded(task, model_args, message):
    with pytest.raises((ValueError, TypeError)) as found:
        check_run(task, model_args)
    assert str(found.value).startswith(message)
    assert "\n" not in str(found.value)


def test_methods_that_cannot_be_joined_are_named():
    with pytest.raises(ValueError, match="cannot be joined in this order: NSP"):
        check_run("videomme_local", f"pretrained={MINIATURE},compressor=sttm+nsp")


def test_there_must_be_a_process():
    with pytest.raises(ValueError, match="the number of processes must be at least 1, got 0"):
        check_run("videomme_local", RIGHT, 0)


def test_what_is_right_is_accepted():
    assert check_run("videomme_local", f"{RIGHT},max_frames_num=8", 2) is None


def test_too_many_frames_are_a_warning_that_names_how_many_fit():
    warning = check_run("videomme_local", f"pretrained={MINIATURE},compressor=none,max_frames_num=5000")
    assert warning is not None
    assert warning.startswith("5000 frames make ")
    fitting = int(warning.split("max_frames_num=")[1].split(",")[0])
    assert check_run("videomme_local", f"pretrained={MINIATURE},compressor=none,max_frames_num={fitting}") is None
    assert check_run("videomme_local", f"pretrained={MINIATURE},compressor=none,max_frames_num={fitting + 1}")
