"""Every file of custom_tasks/ on small data: both formats on disk, paths, and scores computed by hand."""

import json
import re

import pytest

# Four answers a task: right, wrong, words that name no option, and none (the video could not be read).
ANSWERS = {
    "videomme_local": ["B", "A.", "i cannot say", ""],
    "longvideobench_val_v_local": ["B.", "A", "no idea", ""],
    "egoschema_subset_local": ["B", "C", "no idea", ""],
    "egoschema_submission": ["B", "C", "no idea", ""],
    "mlvu_dev_local": ["B)", "A", "no idea", ""],
    "nextqa_mc_test_local": ["B. food", "A", "no idea", ""],
    "mvbench_local": ["(B) box", "A", "no idea", ""],
    "tempcompass_multi_choice_local": ["B. down", "A", "down", ""],
    "vnbench_local": ["B", "A.", "i cannot say", ""],
    "videomme_sttm": ["The answer is B", "Apple", "no idea", ""],
    "longvideobench_val_v_sttm": ["The answer is B", "Apple", "no idea", ""],
    "egoschema_subset_sttm": ["The answer is B", "Apple", "no idea", ""],
    "egoschema_submission_sttm": [],
    "mlvu_dev_sttm": ["The answer is B", "Apple", "no idea", ""],
    "nextqa_mc_test_sttm": ["The answer is B", "Apple", "no idea", ""],
    "vnbench_sttm": ["The answer is B", "Apple", "no idea", ""],
}
# One of four is right everywhere; MLVU averages over seven kinds of question of which the data have one.
SCORES = {
    "videomme_local": {"videomme_perception_score": 25.0},
    "longvideobench_val_v_local": {"lvb_acc": 0.25},
    "egoschema_subset_local": {"score": 0.25},
    "egoschema_submission": {"answers_in_submission": 3.0},
    "mlvu_dev_local": {"mlvu_percetion_score": pytest.approx(25 / 7)},
    "nextqa_mc_test_local": {"exact_match": 0.25},
    "mvbench_local_action_count": {"mvbench_accuracy": 25.0},
    "tempcompass_multi_choice_local": {"avg_accuracy": 25.0, "speed_accuracy": 50.0, "order_accuracy": 0.0},
    "vnbench_local": {"vnbench_accuracy": 25.0, "vnbench_circular": 0.0},
    "videomme_sttm": {"accuracy": 25.0, "accuracy_short": 25.0, "accuracy_Counting_Problem": 25.0},
    "longvideobench_val_v_sttm": {"accuracy": 25.0, "accuracy_15": 25.0, "accuracy_S2E": 25.0},
    "egoschema_subset_sttm": {"accuracy": 25.0},
    "mlvu_dev_sttm": {"accuracy": 25.0, "accuracy_ego": 25.0, "mlvu_percetion_score": pytest.approx(25 / 7)},
    "nextqa_mc_test_sttm": {"accuracy": 25.0, "accuracy_CW": 25.0},
    "vnbench_sttm": {"accuracy": 25.0, "accuracy_ret_edit1": 25.0, "vnbench_circular": 0.0},
}
VIDEOS = {
    "videomme_local": ["videomme/data/v0.mp4", "videomme/data/v1.mp4"],
    "longvideobench_val_v_local": ["longvideobench/videos/v0.mp4", "longvideobench/videos/v3.mp4"],
    "egoschema_subset_local": ["egoschema/videos/v0.mp4", "egoschema/videos/v3.mp4"],
    "egoschema_submission": ["egoschema/videos/v0.mp4", "egoschema/videos/v3.mp4"],
    "mlvu_dev_local": ["mlvu_dev/v0.mp4", "mlvu_dev/v3.mp4"],
    "nextqa_mc_test_local": ["nextqa/NExTVideo/0.mp4", "nextqa/NExTVideo/3.mp4"],
    "mvbench_local_action_count": ["mvbench/perception/videos/v0.mp4", "mvbench/perception/videos/v3.mp4"],
    "tempcompass_multi_choice_local": ["tempcompass/videos/v0.mp4", "tempcompass/videos/v3.mp4"],
    "vnbench_local": ["vnbench/v0.mp4", "vnbench/v1.mp4"],
}

# One function reads all formats.
ALSO_SAVED = ("videomme_local", "egoschema_submission", "vnbench_local", "vnbench_sttm")


@pytest.fixture(scope="module")
def report(probe, parquet_folder, saved_folder):
    return probe({parquet_folder: ANSWERS, saved_folder: {name: ANSWERS[name] for name in ALSO_SAVED}})


def test_nothing_tries_the_network(report):
    assert report.hosts == []


def test_parquet_and_saved_folders_give_the_same_tasks(report):
    from_parquet, from_saved = report.tasks
    assert from_saved.keys() == set(ALSO_SAVED)
    assert from_saved.items() <= from_parquet.items()


def test_mvbench_holds_all_twenty_subtasks(report):
    assert sum(name.startswith("mvbench_local_") for name in report.tasks[0]) == 20


@pytest.mark.parametrize("task", SCORES)
def test_score(report, task):
    assert report.tasks[0][task]["scores"] == SCORES[task]


@pytest.mark.parametrize("task", VIDEOS)
def test_videos_lie_in_the_folder_of_the_task_file_even_when_missing(report, task):
    videos = report.tasks[0][task]["videos"]
    assert [videos[0], videos[-1]] == [[f"data/{path}"] for path in VIDEOS[task]]


STTM_TASKS = [task for task in ANSWERS if task.endswith("_sttm")]


@pytest.mark.parametrize("task", STTM_TASKS)
def test_tasks_of_sttm_ask_for_the_same_videos_and_share_prompt_and_generation(report, task):
    tasks = report.tasks[0]
    (base,) = {task.replace("_sttm", "_local"), task.removesuffix("_sttm")} & set(tasks)
    assert tasks[task]["videos"] == tasks[base]["videos"]
    assert tasks[task]["targets"] == tasks[base]["targets"]
    assert tasks[task]["generation"]["max_new_tokens"] == 32
    for prompt in tasks[task]["prompts"]:
        assert prompt.startswith("Select the best answer to the following multiple-choice question")
        assert prompt.endswith("\nThe best answer is:")


@pytest.mark.parametrize("task", [task for task in STTM_TASKS if "submission" not in task])
def test_tasks_of_sttm_carry_what_the_clustered_error_needs(report, task):
    items = report.tasks[0][task]["items"]["accuracy"]
    assert [item["score"] for item in items] == [1.0, 0.0, 0.0, 0.0]
    assert all(item["videoID"] in video for item, (video,) in zip(items, report.tasks[0][task]["videos"], strict=True))


def test_no_answer_is_never_a_guess(report):
    tasks = report.tasks[0]
    assert [item["parsed_pred"] for item in tasks["longvideobench_val_v_local"]["items"]["lvb_acc"]] == [
        "B",
        "A",
        "A",
        "",
    ]
    assert [item["pred"] for item in tasks["egoschema_subset_local"]["items"]["score"]] == [1, 2, 0, -1]


def test_videomme_carries_what_the_clustered_error_needs(report):
    items = report.tasks[0]["videomme_local"]["items"]["videomme_perception_score"]
    assert [(item["videoID"], item["score"]) for item in items] == [("v0", 1.0), ("v0", 0.0), ("v1", 0.0), ("v1", 0.0)]


def test_tempcompass_marks_unmatched_answers_and_says_so(report):
    items = report.tasks[0]["tempcompass_multi_choice_local"]["items"]["avg_accuracy"]
    assert [item["match_success"] for item in items] == [True, True, False, False]
    assert "TempCompass: 2 of 4 answers name no option and count as wrong" in report.output


def test_submission_file_leaves_out_questions_without_answer(report, parquet_folder):
    (path,) = (parquet_folder / "submissions").glob("inference_results_egoschema_MC_*.json")
    assert json.loads(path.read_text()) == {"v0": 1, "v1": 2, "v2": 0}
    assert "EgoSchema: 1 of 4 questions have no answer" in report.output
    assert f"python submit_egoschema.py --f {path}" in report.output


def test_task_files_name_functions_by_absolute_path(custom_tasks):
    functions = re.findall(
        r"!function (\S+)", "".join(path.read_text() for path in custom_tasks.rglob("*") if path.is_file())
    )
    assert functions
    assert all(name.startswith(("lmms_eval.tasks.", "lmms_eval_stgridpool.")) for name in functions)


def test_custom_tasks_holds_no_python(custom_tasks):
    assert not list(custom_tasks.rglob("*.py"))


def test_readme_has_a_row_for_every_task(custom_tasks):
    readme = (custom_tasks / "README.md").read_text()
    files = [path for path in custom_tasks.rglob("*.yaml") if "mvbench_local_" not in path.name]
    assert [path.stem for path in files if f"| `{path.stem}` |" not in readme] == []
