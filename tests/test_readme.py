"""What README.md and the pages of docs/ show runs, and what they name exists."""

import re
from dataclasses import fields

import av
import numpy as np
import pytest
from typer.main import get_command

from documents import PAGES, REPOSITORY, TEXT
from lmms_eval_stgridpool.cli.app import app
from lmms_eval_stgridpool.run.llava_arguments import LlavaArguments
from lmms_eval_stgridpool.run.native_arguments import NativeArguments
from native_models.families import BUILDERS, build, save
from stgridpool.adapters.families import FAMILIES

ALL_EXAMPLES = [
    example
    for page in PAGES
    if page.name != "add_a_method.md"  # which has a test of its own
    for example in re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
]
NATIVE = {  # families of the examples for native models, by the name of the checkpoint there
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2_5_vl",
    "Qwen/Qwen3-VL-8B-Instruct": "qwen3_vl",
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": "llava_onevision",
}
MANY_QUESTIONS = "Qwen/Qwen2-VL-7B-Instruct"  # the same for the example of many questions about one video
EXAMPLES = [example for example in ALL_EXAMPLES if not any(name in example for name in (*NATIVE, MANY_QUESTIONS))]

EXPECTED = {  # what an example prints, by a text in it
    "planned_count": "torch.Size([10816, 896])",
    "answer = model.generate": "visual tokens and",
    "write_page(": "page.html and picture.png show 2704 tokens",  # 16 frames of 13x13
    "VideoSession(": "from a prefix of",
    "VideoPruning(": "1881 tokens planned, 1881 kept\nthe server has not pruned",
}


@pytest.fixture
def workplace(tmp_path, monkeypatch, golden):
    """A folder with a checkpoint called `checkpoint` and a clip called `video.mp4`, as the examples expect them."""
    (tmp_path / "checkpoint").symlink_to(golden / "llava" / "ckpt-video")
    with av.open(str(tmp_path / "video.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=2, options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(40):
            pixels = np.full((48, 64, 3), 6 * index, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("index", range(len(EXAMPLES)))
def test_python_examples_run(workplace, index, run_python):
    run = run_python("-c", EXAMPLES[index], cwd=workplace)
    assert run.returncode == 0, run.stderr
    (expected,) = (output for text, output in EXPECTED.items() if text in EXAMPLES[index])
    assert expected in run.stdout


@pytest.mark.parametrize("name", NATIVE)
def test_examples_for_native_models_run(workplace, name, capsys):
    """In this process, since loading transformers takes long; the checkpoints are tiny random ones."""
    (example,) = (example for example in ALL_EXAMPLES if name in example)
    save(NATIVE[name], workplace / name)
    variables = {}
    exec(example, variables)  # noqa: S102
    out, inputs = capsys.readouterr().out, variables["inputs"]
    removed = int(out.split()[-3])
    assert 0 < removed < inputs["input_ids"].shape[1]
    assert variables["output"].shape[1] == inputs["input_ids"].shape[1] + 64


def test_the_example_of_many_questions_to_a_native_model_runs(workplace, capsys):
    (example,) = (example for example in ALL_EXAMPLES if MANY_QUESTIONS in example)
    save("qwen2_vl", workplace / MANY_QUESTIONS)
    variables = {}
    exec(example, variables)  # noqa: S102
    assert "from a prefix of" in capsys.readouterr().out
    assert len(variables["answers"]) == 3


def test_every_expected_example_is_there():
    assert all(any(text in example for example in EXAMPLES) for text in EXPECTED)


def test_the_line_in_the_readme_is_one_of_an_example():
    (lines,) = re.findall(r"^```py\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert any(lines in example for example in ALL_EXAMPLES)


def test_the_named_files_exist():
    commands = re.findall(r"(?:bash|python) ((?:scripts/)?[\w/]+\.(?:sh|py))", TEXT)
    named = re.findall(r"`((?:scripts|logs|custom_tasks|stgridpool|llava)/[\w./]+\.\w+)`", TEXT)
    assert commands
    assert named
    for name in {*commands, *named}:
        assert (REPOSITORY / name).is_file(), name


COMMANDS = {
    name: {option for parameter in command.params for option in parameter.opts}
    for name, command in get_command(app).commands.items()
}
SHOWN = re.findall(
    r"^stgridpool ([a-z]+)([^#\n]*)|`stgridpool ([a-z]+)([^`]*)`", TEXT.replace("\\\n", " "), flags=re.MULTILINE
)


def test_commands_and_options_exist():
    shown = [(line or span, options + more) for line, options, span, more in SHOWN]
    assert {name for name, _ in shown} == set(COMMANDS)
    for name, words in shown:
        assert set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", re.sub(r'"[^"]*"', "", words))) <= COMMANDS[name] | {
            "--help"
        }


def test_commands_without_json_are_named():
    (named,) = re.findall(r"`--json` prints the same for programs; only (.*) do not have it", TEXT)
    assert set(re.findall(r"`(\w+)`", named)) == {name for name, options in COMMANDS.items() if "--json" not in options}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not link.startswith("https://"):
            file, _, heading = link.partition("#")
            target = page.parent / file if file else page
            assert target.is_file(), link
            assert not heading or heading in headings(target), link


def headings(page):
    """Anchors of a page's headings, as mkdocs and code hosts write them."""
    names = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", name.lower()).strip().replace(" ", "-") for name in names]


def test_every_native_model_is_in_the_table():
    rows = TEXT.split("| `model_type` | class")[1].split("\n\n")[0].splitlines()[2:]
    cells = [[re.findall(r"`(\w+)`", cell) for cell in row.split(" | ")[:2]] for row in rows]
    named = {name: one for names, classes in cells for name, one in zip(names, classes, strict=True)}
    assert set(named) == {name for family in FAMILIES for name in family.model_types}
    for name in BUILDERS:
        assert type(build(name)[0]).__name__ == f"{named[name]}ForConditionalGeneration"


def test_the_number_of_families_is_right():
    texts = [TEXT, (REPOSITORY / "CHANGELOG.md").read_text(), (REPOSITORY / "docs" / "tour.ipynb").read_text()]
    counts = [re.findall(r"(\d+) families", text) for text in texts]
    assert all(counts)
    assert {int(count) for found in counts for count in found} == {len(FAMILIES)}


def test_every_argument_is_in_the_table():
    table = TEXT.split("| argument | default")[1].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", table)) >= {one.name for one in fields(LlavaArguments)} - {"batch_size"}


def test_every_argument_that_only_video_hf_has_is_in_its_table():
    table = TEXT.split("| `video_hf` argument | default")[1].split("\n\n")[0]
    only = {one.name for one in fields(NativeArguments)} - {one.name for one in fields(LlavaArguments)}
    assert set(re.findall(r"`(\w+)`", table)) >= only | {"sampling", "fps", "max_frames_num"}
    assert only == {"positions", "system_prompt", "min_pixels", "max_pixels"}
