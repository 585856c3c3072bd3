"""A working directory with much that is wrong."""

import json
import shutil
from pathlib import Path

import pytest
from datasets import Dataset

MINIATURE = Path(__file__).resolve().parents[4] / "scripts" / "nano" / "checkpoint"
ROW = {"question_id": "q", "question": "How many?", "options": ["A. 1", "B. 2"], "answer": "B", "duration": "short"}
ROW |= {"domain": "Knowledge", "sub_category": "Astronomy", "task_type": "Counting Problem"}


def write_table(folder, rows):
    folder.mkdir(parents=True)
    Dataset.from_list(rows).to_parquet(folder / "test-00000-of-00001.parquet")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A working directory with the table and two of three videos of Video-MME, and folders that are not checkpoints."""
    folder = tmp_path_factory.mktemp("workplace")
    write_table(folder / "data" / "videomme", [ROW | {"videoID": f"v{index}"} for index in range(3)])
    (folder / "data" / "videomme" / "data").mkdir()
    for index in range(2):
        (folder / "data" / "videomme" / "data" / f"v{index}.mp4").touch()
    write_table(folder / "data" / "mlvu_dev", [{"video_name": "v0.mp4", "question": "Which?", "answer": "A"}])
    write_table(folder / "data" / "tempcompass" / "multi-choice", [{"video_id": "v9", "question": "", "answer": ""}])
    (folder / "data" / "egoschema" / "Subset").mkdir(parents=True)
    videos = [
        {"id": "q", "video_path": f"v{index}.mp4", "question": "", "option0": "", "option1": ""} for index in (0, 1)
    ]
    rows = [video | {"correct_choice": 0, "duration_group": 15, "question_category": "S2E"} for video in videos]
    (folder / "data" / "longvideobench").mkdir()
    Dataset.from_list(rows).to_parquet(folder / "data" / "longvideobench" / "validation-00000-of-00001.parquet")
    (folder / "empty").mkdir()
    config = json.loads((MINIATURE / "config.json").read_text())
    for name, changes in {
        "strange": {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"},
        "short": {"tokenizer_model_max_length": 2000},
        "native": {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl"},
        "molmo": {"architectures": ["Molmo2ForConditionalGeneration"], "model_type": "molmo2"},
        "no_weights": {},
    }.items():
        shutil.copytree(MINIATURE, folder / name)
        (folder / name / "config.json").write_text(json.dumps(config | changes))
    (folder / "no_weights" / "model.safetensors").unlink()
    (folder / "file.safetensors").touch()
    (folder / "own").mkdir()
    (folder / "own" / "clips.csv").write_text("video,question\na.mp4,What?\n")
    (folder / "own" / "a.mp4").touch()
    (folder / "clips.csv").write_text("video,qestion\na.mp4,What?\n")
    (folder / "vidoes.csv").write_text("vidoe,question\na.mp4,What?\n")
    (folder / "lost.csv").write_text("video,question\na.mp4,What?\n")
    (folder / "tasks").mkdir()
    (folder / "tasks" / "mine.yaml").write_text("task: mine\ndataset_path: ./data/videomme\ntest_split: test\n")
    (folder / "broken_tasks").mkdir()
    (folder / "broken_tasks" / "mine.yaml").write_text("task: [mine\n")
    return folder
