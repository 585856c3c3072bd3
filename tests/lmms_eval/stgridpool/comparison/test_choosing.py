"""A choice for a user's own videos: the questions, the sweep, and what is refused."""

import json
from types import SimpleNamespace

import pytest

from lmms_eval_stgridpool.comparison import choosing
from lmms_eval_stgridpool.comparison.choice import Choice
from lmms_eval_stgridpool.comparison.choosing import Chooser
from lmms_eval_stgridpool.comparison.sweeping import Outcome, Sweep
from lmms_eval_stgridpool.questions.path_videos import QUESTIONS
from lmms_eval_stgridpool.questions.video_table import TableQuestion, read_table
from table_samples import sample


@pytest.fixture
def videos(tmp_path, monkeypatch):
    """A folder with two files that are named as videos."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "b.mkv"):
        (tmp_path / name).touch()
    return tmp_path


def chooser(*inputs, **more):
    methods = (Choice.parse("nsp"),)
    given = {"model": "video_hf", "model_args": "pretrained=x", "methods": methods, "retention": (0.5,)}
    given |= {"retention_of": "layer_average", "output": inputs[0].parent / "out"}
    return Chooser(inputs, **given | more)


@pytest.fixture
def sweeps(monkeypatch):
    """The sweeps that are started; they are not the first rank, and so return nothing."""
    found = []
    monkeypatch.setattr(Sweep, "run", lambda self: found.append(self) or Outcome((), (), 0.0, is_first=False))
    return found


def test_videos_without_questions_are_asked_a_few(videos, sweeps):
    assert chooser(videos).run() is None
    [sweep] = sweeps
    asked = read_table(videos.parent / "out" / "questions.jsonl")
    assert asked == [TableQuestion(str(videos / name), text) for name in ("a.mp4", "b.mkv") for text in QUESTIONS]
    assert (sweep.model, sweep.has_own, sweep.retention, sweep.retention_of) == (
        "video_hf",
        True,
        (0.5,),
        "layer_average",
    )
    assert sweep.model_args == "pretrained=x"
    assert sweep.kept == f"all answers so far are kept in {videos.parent / 'out' / 'answers'}"


def test_questions_of_a_table_are_asked(videos, sweeps):
    (videos / "t.csv").write_text("video,question,answer\na,What?,yes\n")
    chooser(videos / "t.csv", model_args="pretrained=x,resume_dir=here").run()
    assert read_table(videos / "out" / "questions.jsonl") == [TableQuestion(str(videos / "a.mp4"), "What?", (), "yes")]
    assert sweeps[0].model_args == "pretrained=x,resume_dir=here"


def test_a_table_may_have_videos_alone(videos, sweeps):
    (videos / "t.csv").write_text("video\nb\n")
    chooser(videos / "t.csv").run()
    asked = read_table(videos / "out" / "questions.jsonl")
    assert [question.question for question in asked] == list(QUESTIONS)


def test_what_cannot_be_chosen_from_is_refused(videos):
    with pytest.raises(FileNotFoundError, match=r"there is no video, folder or table .*c\.mp4"):
        chooser(videos / "c.mp4").run()
    with pytest.raises(FileNotFoundError, match="there is no table"):
        chooser(videos / "t.csv").run()
    (videos / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no videos in"):
        chooser(videos / "empty").run()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"cost": "tokens"}, "--save cannot be 'tokens'"),
        ({"tolerance": 2.0}, "--tolerance must be"),
        ({"retention": (0.5, 1.5)}, "--retention must be"),
    ],
)
def test_options_out_of_range_are_refused(videos, option, message):
    with pytest.raises(ValueError, match=message):
        chooser(videos, **option)
    for name in ("a,b", "it's"):
        with pytest.raises(ValueError, match=r"--output must have neither a comma, .*: lmms-eval would take it apart"):
            chooser(videos, output=videos / name)


def test_the_choice_is_kept(videos, monkeypatch):
    own, nsp = Choice("bilinear", {}, choosing.OWN), Choice("nsp", {}, "nsp@0.5")
    rows = [write_run(videos / "out", run.folder, seconds) for run, seconds in ((own, 1.0), (nsp, 0.5))]
    outcome = Outcome(tuple(rows), ("a remark",), 0.0, choices=(own, nsp), kv_bytes_per_token=1e6)
    monkeypatch.setattr(Sweep, "run", lambda self: outcome)
    found = chooser(videos / "a.mp4").run()
    assert (found.recommendation.run, found.questions, found.asked, found.videos) == ("nsp@0.5", 2, len(QUESTIONS), 1)
    kept = json.loads((videos / "out" / "choice.json").read_text())
    assert kept["recommendation"]["sentence"] == found.recommendation.sentence
    assert [one["model_args"] for one in kept["settings"]] == ["compressor=bilinear", "compressor=nsp"]


def write_run(folder, run, seconds):
    """Write the files of a run of two questions, and return what the table of a sweep needs of it."""
    model = folder / run / "model"
    model.mkdir(parents=True)
    samples = [sample(number, "a", seconds=seconds) for number in range(2)]
    (model / "now_results.json").write_text(json.dumps({"results": {"my_videos_questions": {"accuracy,none": 1.0}}}))
    (model / "now_run.json").write_text("{}")
    lines = "".join(json.dumps(one) + "\n" for one in samples)
    (model / "now_samples_my_videos_questions.jsonl").write_text(lines)
    return SimpleNamespace(run=run, failure=None)
