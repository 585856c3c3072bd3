"""Eight small benchmarks on disk, and a way to run Python on them without a network."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

HERE = Path(__file__).resolve().parent
CUSTOM_TASKS = HERE.parents[1] / "custom_tasks"

VIDEOMME = {"duration": "short", "domain": "Knowledge", "sub_category": "Astronomy", "task_type": "Counting Problem"}
VIDEOMME |= {"question": "How many?", "options": ["A. 1", "B. 2", "C. 3", "D. 4"]}
LONGVIDEOBENCH = {"option0": "one", "option1": "two", "option2": "three", "option3": "N/A", "option4": "N/A"}
LONGVIDEOBENCH |= {"duration_group": 15, "question_category": "S2E", "question": "How many?"}
EGOSCHEMA = {"question": "What happens?", "option": ["A. run", "B. sit", "C. eat", "D. cut", "E. dig"]}
MLVU = {"question": "Which?\n(A) a\n(B) b", "task_type": "ego"}
NEXTQA = {"question": " why did she go ", "a0": "rain", "a1": " food ", "a2": "dog", "a3": "fun", "a4": "sun"}
VNBENCH = {"question": "Which?", "options": ["cat", "dog", "owl", "fox"], "gt_option": "B", "type": "ret_edit1"}
MVBENCH = {"question": "What moved?", "candidates": ["cup", "box", "pen"]}
TEMPCOMPASS = {"question": "What?\nA. up\nB. down", "mc_question": ""}

# Four questions each; every right answer is B.
DOCUMENTS = {
    "videomme": [VIDEOMME | {"videoID": f"v{i // 2}", "question_id": f"q{i}", "answer": "B"} for i in range(4)],
    "longvideobench": [
        LONGVIDEOBENCH | {"video_path": f"v{i}.mp4", "id": f"q{i}", "correct_choice": 1} for i in range(4)
    ],
    "egoschema": [EGOSCHEMA | {"video_idx": f"v{i}", "question_idx": str(i), "answer": "1"} for i in range(4)],
    "mlvu": [MLVU | {"video_name": f"v{i}.mp4", "answer": "B"} for i in range(4)],
    "nextqa": [NEXTQA | {"video": i, "answer": 1, "qid": i, "type": "CW"} for i in range(4)],
    "vnbench": [VNBENCH | {"video": f"v{i // 2}.mp4", "try": i % 2} for i in range(4)],
    "mvbench": [MVBENCH | {"video": f"v{i}.mp4", "answer": "box"} for i in range(4)],
    "tempcompass": [
        TEMPCOMPASS | {"video_id": f"v{i}", "answer": "B. down", "dim": dim}
        for i, dim in enumerate(["speed", "speed", "order", "order"])
    ],
}
# Where a benchmark's table lies: folder under data/, split, and config ("" where the folder has only one).
TABLES = {
    "videomme": [("videomme", "test")],
    "longvideobench": [("longvideobench", "validation")],
    "egoschema": [("egoschema/Subset", "test"), ("egoschema/GENERATION", "test")],
    "mlvu": [("mlvu_dev", "test")],
    "nextqa": [("nextqa/MC", "test")],
    "tempcompass": [("tempcompass/multi-choice", "test")],
}
VIDEO_DIRS = {
    "videomme": "videomme/data",
    "longvideobench": "longvideobench/videos",
    "egoschema": "egoschema/videos",
    "mlvu": "mlvu_dev",
    "nextqa": "nextqa/NExTVideo",
    "vnbench": "vnbench",
    "tempcompass": "tempcompass/videos",
}


def mvbench_subtasks():
    """Names of the 20 subtasks."""
    return sorted(
        path.stem.removeprefix("mvbench_local_") for path in CUSTOM_TASKS.glob("mvbench_local/*_local_*.yaml")
    )


def write_tables(root, write):
    """Write every table below `root` with `write(rows, folder, split)`; MVBench and VNBench as published."""
    for benchmark, tables in TABLES.items():
        for folder, split in tables:
            (root / folder).mkdir(parents=True, exist_ok=True)
            write(DOCUMENTS[benchmark], root / folder, split)
    for benchmark, configs in {
        "egoschema": ["GENERATION", "Subset"],
        "nextqa": ["MC"],
        "tempcompass": ["multi-choice"],
    }.items():
        write_front_matter(root / benchmark, {name: f"{name}/test-*" for name in configs}, split="test")
    (root / "mvbench" / "json").mkdir(parents=True)
    for name in mvbench_subtasks():
        (root / "mvbench" / "json" / f"{name}.json").write_text(json.dumps(DOCUMENTS["mvbench"]))
    (root / "vnbench").mkdir()
    (root / "vnbench" / "test.json").write_text(json.dumps(DOCUMENTS["vnbench"]))
    write_front_matter(root / "mvbench", {name: f"json/{name}.json" for name in mvbench_subtasks()}, split="train")


def write_front_matter(folder, data_files, split):
    """Write the README that tells `datasets` which file belongs to which config."""
    lines = ["---", "configs:"]
    for name, files in data_files.items():
        lines += [f"- config_name: {name}", "  data_files:", f"  - split: {split}", f"    path: {files}"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


def write_parquet(rows, folder, split):
    from datasets import Dataset

    Dataset.from_list(rows).to_parquet(folder / f"{split}-00000-of-00001.parquet")


def write_saved(rows, folder, split):
    from datasets import Dataset, DatasetDict

    DatasetDict({split: Dataset.from_list(rows)}).save_to_disk(folder)


@pytest.fixture(scope="session")
def parquet_folder(tmp_path_factory):
    """Working folder whose data/ holds every benchmark as it is downloaded, with one video (v0 or 0) of each."""
    root = tmp_path_factory.mktemp("parquet")
    write_tables(root / "data", write_parquet)
    for benchmark, folder in VIDEO_DIRS.items():
        (root / "data" / folder).mkdir(exist_ok=True)
        (root / "data" / folder / ("0.mp4" if benchmark == "nextqa" else "v0.mp4")).touch()
    return root


@pytest.fixture(scope="session")
def saved_folder(tmp_path_factory):
    """The same tables as `parquet_folder`, but written with `save_to_disk`; no videos."""
    root = tmp_path_factory.mktemp("saved")
    write_tables(root / "data", write_saved)
    return root


@pytest.fixture(scope="session")
def run_offline(tmp_path_factory, run_python, environment):
    """Run Python in a folder; returns exit status, output and the hosts that it tried to reach."""
    hf_home = tmp_path_factory.mktemp("hf_home")

    def run(arguments, folder):
        log = tmp_path_factory.mktemp("network") / "hosts"
        done = run_python(*arguments, cwd=folder, HF_HOME=str(hf_home), NETWORK_LOG=str(log))
        logs = [path for path in (log, Path(environment["NETWORK_LOG"])) if path.exists()]  # the second: of imports
        hosts = [host for path in logs for host in path.read_text().split()]
        return SimpleNamespace(status=done.returncode, output=done.stdout + done.stderr, hosts=hosts)

    run.hf_home = hf_home
    return run


@pytest.fixture(scope="session")
def probe(run_offline, tmp_path_factory):
    """Load the tasks of each folder in another process: `probe.py`'s report by folder and task, and the hosts tried."""

    def ask(folders, defaults=False):
        folder = tmp_path_factory.mktemp("probe")
        request = {
            "include": str(CUSTOM_TASKS),
            "defaults": defaults,
            "folders": {str(folder): tasks for folder, tasks in folders.items()},
        }
        (folder / "request.json").write_text(json.dumps(request))
        done = run_offline([HERE / "probe.py", folder / "request.json", folder / "report.json"], folder)
        assert done.status == 0, done.output[-4000:]
        report = json.loads((folder / "report.json").read_text())
        return SimpleNamespace(tasks=[report[str(f)] for f in folders], hosts=done.hosts, output=done.output)

    return ask


@pytest.fixture(scope="session")
def custom_tasks():
    """The folder of our task files."""
    return CUSTOM_TASKS
