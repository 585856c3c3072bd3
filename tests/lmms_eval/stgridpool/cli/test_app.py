"""The command ``stgridpool`` as a whole."""

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from lmms_eval_stgridpool.cli import app as module
from lmms_eval_stgridpool.cli.app import app, main

HEAVY = ("torch", "transformers", "lmms_eval", "llava", "stgridpool", "numpy", "datasets", "av")


def test_help_loads_nothing_heavy(environment):
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from lmms_eval_stgridpool.cli.app import app\n"
        "result = CliRunner().invoke(app, ['--help'])\n"
        "for command in app.registered_commands:\n"
        "    name = command.name or command.callback.__name__\n"
        "    assert name in result.output, result.output\n"
        "    assert CliRunner().invoke(app, [name, '--help']).exit_code == 0\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
    )
    # A process of its own: those of `run_python` have loaded these packages beforehand.
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr


def test_an_error_is_one_line_and_the_status_is_1(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["stgridpool", "methods", "vizionzip"])
    with pytest.raises(SystemExit) as end:
        main()
    assert str(end.value).startswith("stgridpool: there is no compressor 'vizionzip', did you mean 'visionzip'?")
    assert "\n" not in str(end.value)
    assert capsys.readouterr() == ("", "")


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch):
    broken = typer.Typer()

    @broken.command()
    def fault() -> None:
        raise KeyError("a fault")

    monkeypatch.setattr(module, "app", broken)
    monkeypatch.setattr("sys.argv", ["stgridpool"])
    with pytest.raises(KeyError, match="a fault"):
        main()


def test_the_version_is_shown():
    result = CliRunner().invoke(app, ["--version"])
    assert result.output.startswith("stgridpool 0.")


def test_the_shell_completes_commands():
    environment = {"_STGRIDPOOL_COMPLETE": "complete_bash", "COMP_WORDS": "stgridpool meth", "COMP_CWORD": "1"}
    result = CliRunner().invoke(app, [], env=environment, prog_name="stgridpool")
    assert result.output.split() == ["methods"]


def test_methods_are_listed_for_programs():
    result = CliRunner().invoke(app, ["methods", "--json"])
    found = {entry["name"]: entry for entry in json.loads(result.output)}
    assert found["cdpruner"]["query_aware"] is True
    assert found["nsp"]["where"] == "pooling"


def test_methods_of_other_packages_are_named_unless_one_of_ours_has_the_name(monkeypatch):
    monkeypatch.setattr("stgridpool.elsewhere.installed_names", lambda: ["fastv", "mine", "theirs"])
    assert CliRunner().invoke(app, ["methods"]).output.splitlines()[-1] == "of other packages: mine, theirs"


def test_methods_are_listed_for_people():
    lines = CliRunner().invoke(app, ["methods"]).output.splitlines()
    [line] = [line for line in lines if line.split()[:1] == ["visionzip"]]
    assert "retention (0.25)" in line
    assert "VisionZip (CVPR 2025), arXiv" in line


def test_one_method_is_shown_with_the_models_that_it_runs_on():
    found = json.loads(CliRunner().invoke(app, ["methods", "fastvid", "--json"]).output)
    assert found["presets"] == ["released", "released_onevision"]
    assert "pool_head=" in found["models"]["LLaVA-Video, LLaVA-OneVision"]
    assert "is not a SigLIP tower" in found["models"]["LLaVA on CLIP"]
    text = CliRunner().invoke(app, ["methods", "nsp"]).output
    assert "Presets: none" in text
    assert text.count("yes") == 2 + 11  # both kinds of model in LLaVA-NeXT's format, and all native families


def test_methods_say_which_native_families_they_run_on():
    models = json.loads(CliRunner().invoke(app, ["methods", "fastv", "--json"]).output)["models"]
    assert models["qwen2_vl, qwen2_5_vl"] == "yes"
    assert models["molmo2"].startswith(
        "no: it acts inside the language model, where visual tokens of this family attend"
    )
    assert all(models[name].startswith("no: ") for name in models if name.startswith("LLaVA")) is False
    assert models["qwen3_5, qwen3_5_moe"].startswith("no: it acts inside the language model, most of whose layers are")
    assert "from layer 3 on" in models["qwen3_vl, qwen3_vl_moe"]  # after three DeepStack levels; fastv acts at 2
    refusing = ["qwen3_vl, qwen3_vl_moe", "qwen3_5, qwen3_5_moe", "molmo2"]
    assert [name for name, answer in models.items() if answer != "yes"] == refusing
    models = json.loads(CliRunner().invoke(app, ["methods", "pyramid_drop", "--json"]).output)["models"]
    assert models["qwen3_vl, qwen3_vl_moe"] == "yes"  # it acts from a quarter of the depth on
    models = json.loads(CliRunner().invoke(app, ["methods", "visionzip", "--json"]).output)["models"]
    assert set(models.values()) == {"yes"}  # every family has a vision tower whose attention and keys can be read
    models = json.loads(CliRunner().invoke(app, ["methods", "earlytom_frames", "--json"]).output)["models"]
    assert models["internvl"] == "no: it acts on frames or in the vision tower, which native models do not allow"
    models = json.loads(CliRunner().invoke(app, ["methods", "fastvid", "--json"]).output)["models"]
    assert models["internvl"].startswith("no: FastVID(")


def test_doctor_ends_with_status_1_if_a_run_would_break(tmp_path):
    arguments = ["doctor", "--quick", "--checkpoint", str(tmp_path / "none"), "--json"]
    result = CliRunner().invoke(app, arguments)
    states = {finding["subject"]: finding["state"] for finding in json.loads(result.output)}
    assert states["checkpoint"] == "problem"
    assert states["plug-in"] == "ok"
    assert result.exit_code == 1


def test_doctor_prints_a_table_with_repairs(tmp_path):
    result = CliRunner().invoke(app, ["doctor", "--quick", "--checkpoint", str(tmp_path / "none")])
    assert "name a folder or a hub name" in result.output
    assert result.output.splitlines()[-1].startswith("problems: 1, warnings: ")
