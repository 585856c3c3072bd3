"""What the checks tell the script, and what they let through."""

import json
import shutil
from pathlib import Path

import pytest

from lmms_eval_stgridpool.run import check_command, device_checks
from lmms_eval_stgridpool.run.cause import CAUSE
from lmms_eval_stgridpool.run.checks import check_run
from lmms_eval_stgridpool.run.task_checks import Asked

MINIATURE = str(Path(__file__).resolve().parents[4] / "scripts" / "nano" / "checkpoint")
RIGHT = f"pretrained={MINIATURE},compressor=nsp,max_frames_num=8"


@pytest.fixture(autouse=True)
def _in_workplace(workplace, monkeypatch):
    monkeypatch.chdir(workplace)


def words(*arguments, task="videomme_local", processes="", include=""):
    options = ["--launch=", f"--include_path={include}", f"--processes={processes}", "--runs=runs"]
    return [*options, task, MINIATURE, "nsp", "max_frames_num=8", *arguments]


def test_what_is_right_is_told_to_the_script(capsys):
    lines = check_command.check("evaluate.sh", words("max_failed=0.5", processes="2"))
    gpus, model, task, include, output = lines
    assert output == "runs/videomme_local/nsp_max_frames_num=8_max_failed=0.5"
    assert gpus.isdecimal()
    assert (model, task) == ("llava_video", "videomme_local")
    assert Path(include, "videomme_local.yaml").is_file()
    assert capsys.readouterr().err == (
        "evaluate.sh: videomme_local: 1 of 3 videos are missing, such as data/videomme/data/v2.mp4; 1 of 3 questions "
        "are about them: put the videos there, or unpack the archives in data/videomme/data\n"
    )


def test_a_run_with_a_limit_needs_only_the_videos_that_it_asks_about(capsys):
    assert check_command.check("evaluate.sh", [*words("max_failed=0.1"), "--", "--limit", "2"])
    assert capsys.readouterr().err == ""


def test_a_folder_of_task_files_is_taken_from_the_options_of_lmms_eval_too():
    for given in (words(task="mine", include="tasks"), [*words(task="mine"), "--", "--include_path", "tasks"]):
        assert check_command.check("evaluate.sh", given)[3] == "tasks"


def test_other_options_have_another_folder():
    """The number of processes and of machines changes no answer."""
    plain, tasks = words(task="mine", include="tasks"), ["--include_path", "tasks"]
    others = [
        *([*plain, "fps=1"], [*plain, 'compressor_args={"stride":2}'], [*plain, "--", "--limit", "2"]),
        *(words(task="mine", include="./tasks"), [*words(task="mine"), "--", *tasks], words()),
    ]
    folders = [check_command.check("evaluate.sh", given)[4] for given in (plain, *others)]
    assert len(set(folders)) == len(folders)
    same = ["--launch=--num_machines 2", "--include_path=tasks", "--processes=2", "--runs=runs", *plain[4:]]
    assert check_command.check("evaluate.sh", same)[4] == folders[0]


def test_options_of_the_launcher_are_split_as_in_a_shell():
    given = ["--launch=--config_file 'my file' --num_machines 2", *words()[1:]]
    assert check_command.check("evaluate.sh", given)[5:] == ["--config_file", "my file", "--num_machines", "2"]
    with pytest.raises(ValueError, match=r"--launch must hold options as in a shell, got 'a: No closing quotation"):
        check_command.check("evaluate.sh", ["--launch='a", *words()[1:]])


@pytest.mark.parametrize("name", ["a,b", "it's", "a{b", "a "])
def test_a_path_that_lmms_eval_would_take_apart_is_refused(name):
    with pytest.raises(ValueError, match=r"--output must have neither a comma.* rename it, or name a link to it"):
        check_command.check("evaluate.sh", [*words(), f"--output={name}"])
    model = [name if word == MINIATURE else word for word in words()]
    with pytest.raises(ValueError, match="the checkpoint must have neither a comma"):
        check_command.check("evaluate.sh", model)


def test_blanks_and_pairs_of_quotes_in_paths_go_through():
    assert check_command.check("evaluate.sh", [*words(), "--output=my 'own' runs"])[4] == "my 'own' runs"


def test_a_table_becomes_a_task(workplace, tmp_path):
    given = [*words(task="own/clips.csv"), "--runs", str(tmp_path)]
    _, _, task, include, output = check_command.check("evaluate.sh", given)
    assert Path(output).parent == tmp_path / task
    assert task.startswith("my_videos_clips_")
    assert Path(include).parent == tmp_path / ".tasks"
    task_file = json.loads((Path(include) / f"{task}.yaml").read_text())
    assert task_file["dataset_path"] == str(workplace / "own" / "clips.csv")


def test_features_in_a_cache_serve_without_videos():
    checked = check_run("longvideobench_val_v_local", f"{RIGHT},feature_cache=cache,features_of_missing_videos=True")
    assert "2 of 2 videos are missing" in checked.warnings[0]


def test_videos_are_refused_if_they_do_not_fit_without_text_and_warned_of_if_the_text_decides():
    """Frames have 56 tokens with their newlines, and the checkpoint takes 2000."""
    short = "pretrained=short,compressor=none,max_frames_num="
    asked = Asked(limit=2)  # both videos are there
    assert check_run("videomme_local", f"{short}34", asked=asked).warnings == ()  # 1904 and 64
    [warning] = check_run("videomme_local", f"{short}35", asked=asked).warnings  # 1960
    assert "35 frames make a prompt of about 2024 tokens" in warning
    assert "questions about long videos with more than 40 tokens of text may fail; use " in warning
    with pytest.raises(ValueError, match=r"36 frames .* questions about long videos will fail"):  # 2016
        check_run("videomme_local", f"{short}36", asked=asked)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(device_checks, "count_gpus", lambda: 2)
    with pytest.raises(ValueError, match="3 processes on this machine need as many GPUs, and torch sees 2: start 2"):
        check_run("videomme_local", RIGHT, 3)
    assert check_run("videomme_local", RIGHT, 4, machines=2).num_gpus == 2


def test_processes_on_the_cpu_need_no_gpus(monkeypatch):
    monkeypatch.setattr(device_checks, "count_gpus", lambda: 1)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    with pytest.raises(ValueError, match="2 processes on this machine need as many GPUs, and torch sees 1"):
        check_command.check("evaluate.sh", words(processes="2"))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert check_command.check("evaluate.sh", words(processes="2"))[0] == "1"


def test_a_native_model_is_recognised(tmp_path):
    shutil.copytree(MINIATURE, tmp_path / "native")
    settings = {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl"}
    (tmp_path / "native" / "config.json").write_text(json.dumps(settings))
    given = f"pretrained={tmp_path}/native,compressor=nsp"
    assert check_run("videomme_local", given).model == "video_hf"
    with pytest.raises(ValueError, match="video_hf has no argument 'conv_template': prompts follow the"):
        check_run("videomme_local", f"{given},conv_template=qwen_1_5")


COMMAND_LINE = ["--model", "llava_video", "--model_args", RIGHT, "--tasks", "videomme_local"]


def test_the_command_line_of_lmms_eval_is_checked(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SystemExit, match="lmms_eval: videomme_local ships with stgridpool: name its folder, --in"):
        check_command.check_command_line(COMMAND_LINE)
    right = [*COMMAND_LINE, "--include_path", str(check_command.folder_to_include([], None))]
    check_command.check_command_line(right)
    wrong = [word.replace("nsp", "nps") for word in right]
    with pytest.raises(SystemExit, match=r"^lmms_eval: there is no compressor 'nps', did you mean 'nsp'"):
        check_command.check_command_line(wrong)
    with pytest.raises(SystemExit, match=r"^lmms_eval: --limit must be a whole number .* or -1 for all, got nan$"):
        check_command.check_command_line([*right, "--limit", "nan"])
    check_command.check_command_line([*right, "--limit", "few"])  # lmms-eval's own parser says it
    monkeypatch.setenv("RANK", "1")
    check_command.check_command_line(wrong)  # rank 0 says it


def test_warnings_that_the_script_has_printed_are_not_repeated(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("RANK", raising=False)
    words = ["--model", "llava_video", "--model_args", "pretrained=short,compressor=none,max_frames_num=35"]
    words += ["--tasks", "videomme_local", "--include_path", str(check_command.folder_to_include([], None))]
    words += ["--output_path", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["lmms_eval", *words])
    check_command.check_command_line(words)
    said = capsys.readouterr().err.splitlines()
    assert [line.split()[:3] for line in said] == [
        ["lmms_eval:", "videomme_local:", "1"],
        ["lmms_eval:", "35", "frames"],
    ]
    (tmp_path / CAUSE).touch()
    check_command.check_command_line(words)
    assert capsys.readouterr() == ("", "")


def test_a_mistake_is_reported_to_the_launcher(monkeypatch, tmp_path):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "report"))
    with pytest.raises(SystemExit):
        check_command.check_command_line([word.replace("videomme_local", "videomme_locl") for word in COMMAND_LINE])
    assert json.loads((tmp_path / "report").read_text())["message"].startswith("there is no task 'videomme_locl', did")


def test_a_command_line_of_other_models_is_left_alone():
    check_command.check_command_line(["--model", "qwen2_vl", "--model_args", "x", "--tasks", "none"])
    check_command.check_command_line(["--tasks", "list"])
