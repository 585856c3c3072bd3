"""lmms-eval's own tasks, by name, on folders named like the hub's: usable offline, and the same prompts as ours."""

import pytest

# Stock task, its answers (right, wrong, words; fewer where the stock task would call an API), its score, and our task.
ANSWERS = {
    "videomme": ["B", "A.", "i cannot say"],
    "longvideobench_val_v": ["B.", "A", "no idea"],
    "egoschema": [],
    "egoschema_subset": ["B", "C", "no idea"],
    "mlvu_dev": ["B)", "A", "no idea"],
    "nextqa_mc_test": ["B. food", "A", "no idea"],
    "mvbench": ["(B) box", "A", "no idea"],
    "tempcompass_multi_choice": ["B. down", "A"],
}
OURS = {
    "videomme": "videomme_local",
    "longvideobench_val_v": "longvideobench_val_v_local",
    "egoschema": "egoschema_submission",
    "egoschema_subset": "egoschema_subset_local",
    "mlvu_dev": "mlvu_dev_local",
    "nextqa_mc_test": "nextqa_mc_test_local",
    "mvbench_action_count": "mvbench_local_action_count",
    "mvbench_object_existence": "mvbench_local_object_existence",
    "tempcompass_multi_choice": "tempcompass_multi_choice_local",
}
HUB_NAMES = {
    "lmms-eval/Video-MME": "videomme",
    "longvideobench/LongVideoBench": "longvideobench",
    "lmms-eval/egoschema": "egoschema",
    "sy1998/MLVU_dev": "mlvu_dev",
    "lmms-eval/NExTQA": "nextqa",
    "OpenGVLab/MVBench": "mvbench",
    "lmms-eval/TempCompass": "tempcompass",
}
# Where the stock tasks look for videos below HF_HOME, and the names of the four.
STOCK_VIDEOS = {
    "videomme/data": "v{}.mp4",
    "datasets/longvideobench/videos": "v{}.mp4",
    "egoschema/videos": "v{}.mp4",
    "mlvu": "v{}.mp4",
    "nextqa/NExTVideo": "{}.mp4",
    "mvbench_video": "v{}.mp4",
    "tempcompass/videos": "v{}.mp4",
}


@pytest.fixture(scope="module")
def report(probe, run_offline, parquet_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    for hub_name, ours in HUB_NAMES.items():
        (folder / hub_name).parent.mkdir(exist_ok=True)
        (folder / hub_name).symlink_to(parquet_folder / "data" / ours)
    (folder / "data").symlink_to(parquet_folder / "data")
    for videos, name in STOCK_VIDEOS.items():
        (run_offline.hf_home / videos).mkdir(parents=True)
        for index in range(4):
            (run_offline.hf_home / videos / name.format(index)).touch()
    ours = {name.replace("mvbench_local_action_count", "mvbench_local"): [] for name in OURS.values()}
    return probe({folder: ANSWERS | ours}, defaults=True)


@pytest.mark.parametrize("stock", OURS)
def test_prompts_targets_and_generation_equal_ours(report, stock):
    tasks = report.tasks[0]
    for part in ("prompts", "targets", "generation"):
        assert tasks[stock][part] == tasks[OURS[stock]][part]
    assert len(tasks[stock]["prompts"]) == 4


@pytest.mark.parametrize("stock", [name for name in OURS if not name.startswith("mvbench")])
def test_video_names_equal_ours(report, stock):
    videos, ours = (
        [path.split("/")[-1] for (path,) in report.tasks[0][name]["videos"]] for name in (stock, OURS[stock])
    )
    assert videos == ours


def test_stock_scores(report):
    """One right of three (TempCompass: of two), so that the scores of our tasks have something to be compared with."""
    scores = {name: task["scores"] for name, task in report.tasks[0].items()}
    assert scores["videomme"] == {"videomme_perception_score": pytest.approx(100 / 3)}
    assert scores["longvideobench_val_v"] == {"lvb_acc": pytest.approx(1 / 3, abs=1e-5)}
    assert scores["egoschema_subset"] == {"score": pytest.approx(1 / 3)}
    assert scores["mlvu_dev"] == {"mlvu_percetion_score": pytest.approx(100 / 3 / 7)}
    assert scores["nextqa_mc_test"] == {"exact_match": pytest.approx(1 / 3)}
    assert scores["mvbench_action_count"] == {"mvbench_accuracy": pytest.approx(100 / 3)}
    assert scores["tempcompass_multi_choice"] == {"avg_accuracy": 50.0, "speed_accuracy": 50.0}


def test_the_only_host_tried_is_that_of_nltk(report):
    """lmms-eval's NExT-QA module asks nltk for three packages when it loads, whatever HF_HUB_OFFLINE says."""
    assert set(report.hosts) <= {"raw.githubusercontent.com"}
