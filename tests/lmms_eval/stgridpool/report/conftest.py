"""Runs on disk, as lmms-eval writes them, whose every difference can be counted by hand."""

import json
from pathlib import Path

import pytest

METRIC = "accuracy"
VIDEOS = "aabbcc"  # two questions about each of three videos
KINDS = "xyxyxy"


@pytest.fixture
def write_run(tmp_path):
    """Function that writes a run and returns its folder."""

    def write(name, answers, tokens=100, frames=8, record=None, is_ours=True) -> Path:
        folder = tmp_path / name / "checkpoint"
        folder.mkdir(parents=True)
        scores = [float(answer == "A") for answer in answers]
        counts = {"frames": frames, "visual_tokens": tokens, "failed": False, "retention": {"last_layer": tokens / 200}}
        samples = [
            {
                "doc_id": index,
                "target": "A",
                "filtered_resps": [answer],
                "input": f"question {index}",
                METRIC: {"score": score, "videoID": VIDEOS[index], "kind": KINDS[index], "answer": "A"},
                **({"token_counts": [counts]} if is_ours else {}),
            }
            for index, (answer, score) in enumerate(zip(answers, scores, strict=True))
        ]
        results = {"task": {"alias": "task", f"{METRIC},none": 100 * sum(scores) / 6}}
        config = {"model": "llava_vid", "model_args": "pretrained=x"}
        (folder / "1_results.json").write_text(json.dumps({"results": results, "config": config}))
        (folder / "1_samples_task.jsonl").write_text("\n".join(map(json.dumps, samples)))
        if is_ours:
            written = {"compressor": name.title(), "requests": 6, "seconds": {"prefill": 3.0, "generate": 0.6}}
            (folder / "1_run.json").write_text(json.dumps(written | (record or {})))
        return tmp_path / name

    return write
