"""Models of a sweep answer as models of their own do, from videos that are read and encoded once."""

import pytest
import torch

from llava.video_process import VideoReader
from lmms_eval_stgridpool.sweep import SweptModel
from stgridpool import Recycle, TemporalAverage, build_compressor

NAMES = ("st_gridpool", "bilinear", "none")
VIDEOS = ["v0.mp4", "v1.mp4", "v0.mp4", "broken.mp4", "v1.mp4", "v0.mp4", "broken.mp4"]
SETTINGS = {"add_time_instruction": True, "questions_per_batch": 2, "answer_without_visuals": True}


def ask_all(ask, model):
    """What a model answers to questions of two kinds, with the tokens and frames that it counts."""
    free = [
        {"visuals": [name], "context": f"What is it, {index}?", "gen_kwargs": {"max_new_tokens": 4 + index}}
        for index, name in enumerate(VIDEOS)
    ]
    free.append({"context": "And without a video?"})
    results = ask(model, "generate_until", free)
    choices = [{"visuals": [name], "continuation": word} for name in VIDEOS[:2] for word in ("red", "a green thing")]
    results += ask(model, "loglikelihood", choices)
    keep = ("frames", "visual_tokens", "newline_tokens", "input_tokens", "output_tokens", "compressor", "failure")
    return [(result.text, *(getattr(result.token_counts, name) for name in keep)) for result in results]


@pytest.fixture
def sweep(make_model):
    return make_model(SweptModel, **SETTINGS).for_each([build_compressor(name) for name in NAMES])


@pytest.fixture
def counts(monkeypatch, sweep):
    """Names of the videos that are read, and numbers of the frames that go through the tower."""
    read, encoded = [], []
    plain_read, tower = VideoReader.read, sweep[0].model.language_model.get_vision_tower()
    plain_forward = tower.forward

    def reading(self, path, **options):
        read.append(path.name)
        return plain_read(self, path, **options)

    def encoding(pixels):
        encoded.append(len(pixels))
        return plain_forward(pixels)

    monkeypatch.setattr(VideoReader, "read", reading)
    monkeypatch.setattr(tower, "forward", encoding)
    return read, encoded


def test_answers_are_those_of_separate_runs(sweep, ask, make_model):
    found = [ask_all(ask, model) for model in sweep]
    for name, results in zip(NAMES, found, strict=True):
        assert results == ask_all(ask, make_model(compressor=name, **SETTINGS))
    assert len({tuple(results) for results in found}) == 3


@pytest.mark.parametrize("mode", ["average", "max", "bilinear"])
def test_the_checkpoint_as_it_is_has_a_name(sweep, monkeypatch, mode):
    monkeypatch.setattr(sweep[0].model.language_model.config, "mm_spatial_pool_mode", mode)
    name, options = sweep[0].own_choice()
    assert build_compressor(name, **options) == sweep[0].model.own_pooling()


def test_a_position_takes_keys_and_values_in_every_layer(sweep):
    config = sweep[0].model.language_model.config
    width = config.hidden_size // config.num_attention_heads * config.num_key_value_heads
    assert sweep[0].kv_bytes_per_token == 2 * width * config.num_hidden_layers * 4  # float32


def test_videos_are_read_and_encoded_once(sweep, ask, counts):
    read, encoded = counts
    documents = [{"visuals": [name]} for name in VIDEOS]
    for model in sweep:
        ask(model, "generate_until", documents)
    assert sorted(read) == ["broken.mp4", "v0.mp4", "v1.mp4"]
    assert sum(encoded) == 5 + 7  # one frame a second


def test_each_model_counts_for_itself(sweep, ask):
    documents = [{"visuals": [name]} for name in VIDEOS]
    for model in sweep:
        ask(model, "generate_until", documents)
        model.clean()
    tokens = [model.run_record["tokens_per_frame"] for model in sweep]
    assert tokens == [9, 16, 49]  # of 7x7 patches
    for model in sweep:
        record = model.run_record
        assert (record["requests"], record["failed_requests"], record["videos_encoded"]) == (7, 2, 2)
        assert record["sweep"] == [repr(build_compressor(name)) for name in NAMES]
    assert "vision" in sweep[0].run_record["seconds"]
    assert "vision" not in sweep[1].run_record["seconds"]


def test_a_compressor_that_the_model_cannot_run_is_named(make_model):
    methods = [build_compressor("bilinear"), build_compressor("fastvid")]
    with pytest.raises(ValueError, match=r"^FastVID\(.*\): .* asks for the pooling head"):
        make_model(SweptModel, **SETTINGS).for_each(methods)


def test_a_refused_method_is_named_once(make_model):
    method = build_compressor("earlytom_frames", layers=(-20,))
    with pytest.raises(ValueError, match=r"^EarlyTomFrames.* acts after .*-20") as raised:
        make_model(SweptModel, **SETTINGS).for_each([method])
    assert str(raised.value).count("EarlyTomFrames(") == 1


@pytest.mark.parametrize(
    ("stops", "message"),
    [
        (TemporalAverage(retention=0.2), "temporal_average leaves whole frames of 16 tokens"),
        (Recycle(method="tome"), "recycle needs a method that selects tokens, not tome: this plan merges tokens"),
    ],
)
def test_a_compressor_that_cannot_work_on_a_video_stops_alone(ask, make_model, stops, message):
    """The videos have 5 and 7 frames of 16 tokens: a fifth is a whole frame of the first only."""
    compressors = [stops, build_compressor("bilinear")]
    stopped, other = make_model(SweptModel, **SETTINGS).for_each(compressors)
    documents = [{"visuals": [name]} for name in ("v0.mp4", "v1.mp4", "v0.mp4")]
    assert "" in [result.text for result in ask(stopped, "generate_until", documents)]
    assert message in stopped.budget_missed
    assert other.budget_missed is None
    alone = make_model(compressor="bilinear", **SETTINGS)
    assert [one.text for one in ask(other, "generate_until", documents)] == [
        one.text for one in ask(alone, "generate_until", documents)
    ]


def test_memory_holds_one_video_of_one_compressor(sweep, ask):
    ask(sweep[0], "generate_until", [{"visuals": ["v0.mp4"]}, {"visuals": ["v1.mp4"]}])
    for model in sweep:
        assert model._answerer._media._made is None
        assert model._answerer.shared._session is None
    [last] = sweep[0].encoder.last._made
    assert len(last.features) == 7
    assert isinstance(last.features, torch.Tensor)


def test_a_cache_on_disk_is_used_as_well(ask, tmp_path, monkeypatch, make_model):
    def make():
        model = make_model(SweptModel, feature_cache=str(tmp_path))
        return model.for_each([build_compressor(name) for name in NAMES[:2]])

    documents = [{"visuals": [name]} for name in ("v0.mp4", "v1.mp4")]
    expected = [[result.text for result in ask(model, "generate_until", documents)] for model in make()]
    monkeypatch.setattr(VideoReader, "read", None)
    assert [[result.text for result in ask(model, "generate_until", documents)] for model in make()] == expected


def journalled(make_model, folder):
    """The models of a sweep that keeps its answers."""
    model = make_model(SweptModel, resume_dir=str(folder), **SETTINGS)
    return model.for_each([build_compressor(name) for name in NAMES])


def counted(model):
    """Numbers of the new answers and of the resumed ones."""
    model.clean()
    return model.run_record["requests"], model.run_record["resumed_requests"]


def test_a_killed_sweep_goes_on(ask, tmp_path, make_model, monkeypatch):
    """It stops at the second video's third answer, of the last compressor."""
    documents = [{"visuals": [name]} for name in ("v0.mp4", "v1.mp4")]
    models = journalled(make_model, tmp_path)

    class KilledError(BaseException):
        pass

    def killed(jobs, no_answer):
        if jobs[0].request.position == 1:
            raise KilledError
        return plain(jobs, no_answer)

    plain = models[-1]._answer_alone
    monkeypatch.setattr(models[-1], "_answer_alone", killed)
    with pytest.raises(KilledError):
        ask(models[0], "generate_until", documents)
    again = journalled(make_model, tmp_path)
    found = [[result.text for result in ask(model, "generate_until", documents)] for model in again]
    for name, texts in zip(NAMES, found, strict=True):
        alone = make_model(compressor=name, **SETTINGS)
        assert texts == [result.text for result in ask(alone, "generate_until", documents)]
    assert [counted(model) for model in again] == [(0, 2), (0, 2), (1, 1)]


def test_a_sweep_continues_separate_runs_and_they_continue_a_sweep(ask, tmp_path, make_model, monkeypatch):
    documents = [{"visuals": [name]} for name in ("v0.mp4", "v1.mp4", "v0.mp4")]  # the first is asked twice
    options = {"max_frames_num": 8, "resume_dir": str(tmp_path), **SETTINGS}
    ask(make_model(compressor="bilinear", **options), "generate_until", documents[:2])
    models = journalled(make_model, tmp_path)
    expected = [[result.text for result in ask(model, "generate_until", documents)] for model in models]
    assert [counted(model) for model in models] == [(3, 0), (1, 2), (3, 0)]
    monkeypatch.setattr(VideoReader, "read", None)
    for name, texts in zip(NAMES, expected, strict=True):
        alone = make_model(compressor=name, **options)
        assert [result.text for result in ask(alone, "generate_until", documents)] == texts
        assert counted(alone) == (0, 3)


def test_what_the_model_does_not_offer_is_refused(checkpoint):
    with pytest.raises(TypeError, match="compressor must be a Compressor"):
        SweptModel(pretrained=str(checkpoint), device="cpu").for_each([build_compressor("none"), 3])
