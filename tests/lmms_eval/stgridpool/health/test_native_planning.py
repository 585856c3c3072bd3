"""Tokens of native models that are counted beforehand are those of the running model."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from llava.video import VideoReadError
from lmms_eval_stgridpool.health.native_planning import NativePlanner
from lmms_eval_stgridpool.health.planned import TEXT_TOKENS
from lmms_eval_stgridpool.health.weights import check_checkpoint
from lmms_eval_stgridpool.run import checkpoint_checks
from lmms_eval_stgridpool.run.native_arguments import NativeArguments
from lmms_eval_stgridpool.video_hf import VideoHf
from native_models.families import DENSE
from stgridpool import NSP, STTM, FastV, NoCompression, Random, build_compressor
from stgridpool.timing import StageTimer


@pytest.fixture(scope="module")
def planner_of(folder_of, clips):
    """Function that returns a planner for a video, by default for 4 frames of a clip of 64x48 pixels and 40 frames."""

    def planner_of(name, most=(4,), video=clips / "v0.mp4", **arguments):
        return NativePlanner.of(video, NativeArguments(str(folder_of(name)), **arguments), most)

    return planner_of


@pytest.mark.parametrize("name", DENSE)
def test_counts_are_those_of_the_model(planner_of, folder_of, make_model, clips, name):
    """Without a method and with a pruner; the text between frames is what a prompt has there."""
    given = {"torch_dtype": "float32", "max_frames_num": 4, "compressor": "none"}
    model = make_model(VideoHf, pretrained=str(folder_of(name)), **given)
    timer, planner = StageTimer(torch.device("cpu")), planner_of(name)
    encoded = model.encoder.encode([clips / "v0.mp4"], timer)
    for method in (NoCompression(), Random(retention=0.5)):
        model.model.compressor = method
        media = model.encoder.compress(encoded, "", timer)
        (video,) = media.visuals
        planned = planner.plan(method, 4)
        assert (planned.tokens, planned.newlines) == (video.num_tokens, video.num_newlines)
        assert planned.own_tokens == model.model.own_counts(video)[0]
        assert planned.compressor == repr(method)
        prompt = model.model.prompt("", media.visuals, media.clips)
        if name != "molmo2":  # whose marks after the last token end the video, too
            between = len(prompt.pieces[1]) - planned.tokens - planned.newlines
            assert planned.text_tokens == TEXT_TOKENS + between


def test_every_definition_and_the_cost_are_reported(planner_of):
    """Two times 6x8 tokens of two frames each, half of them from the second of four layers on."""
    planner = planner_of("qwen2_5_vl")
    planned = planner.plan(FastV(layer=1, retention=0.5), 4)
    assert planned.kept["entering_llm"] == planned.tokens == 96
    assert planned.kept["last_layer"] == 48
    assert planned.kept["layer_average"] == planned.kept["kv_read"] == (96 + 3 * 48) / 4
    assert planned.kept["last_layer_with_newlines"] == 48
    lengths = [96 + TEXT_TOKENS, *[48 + TEXT_TOKENS] * 3]
    assert planned.kv_megabytes == planner.size.kv_bytes(lengths) / 1e6
    assert planned.tflops == planner.size.prefill_flops(lengths) / 1e12
    assert (planned.positions, planned.longest, planned.fits) == (96 + TEXT_TOKENS, 32768, True)
    assert planner.plan(STTM(), 4).kept["last_layer"] is None


def test_own_pooling_is_replaced_or_kept(planner_of):
    """Frames of 7x7 patches, pooled to 4x4, and a newline after the video."""
    planner = planner_of("llava_onevision")
    none, nsp = planner.plan(NoCompression(), 4), planner.plan(NSP(), 4)
    assert (none.own_tokens, none.tokens, none.newlines) == (64, 64, 1)
    assert (nsp.own_tokens, nsp.tokens, nsp.retention["entering_llm"]) == (64, 36, 36 / 64)


def test_the_sampling_of_the_checkpoint_and_its_options_choose_the_frames(planner_of):
    assert planner_of("qwen3_vl", (None,)).counts == [10]  # 5 s, two frames per second
    assert planner_of("qwen3_vl", (None, 4, 40), fps=1).counts == [5, 4]
    assert planner_of("qwen3_vl", (6, 4, 4)).counts == [6, 4]
    small = planner_of("qwen2_5_vl", max_pixels=24 * 32).plan(NoCompression(), 4)
    assert small.tokens == 2 * 3 * 4
    stock = planner_of("qwen3_vl", (None,), sampling="lmms_eval", min_pixels=32 * 32, max_pixels=64 * 64)
    assert stock.counts == [32]
    assert stock.plan(NoCompression(), 32).tokens > 0


def test_frames_that_fit(planner_of):
    """48 tokens for two frames; the video has 40, and a longer one of its kind is counted beyond them."""
    planner = planner_of("qwen2_5_vl")
    assert planner.fit(NoCompression(), 100) == 4
    assert planner.fit(NoCompression(), 48 * 100) == 200
    assert planner.fit(Random(retention=0.25), 100) == 16
    assert planner.most_sampled == 768  # of Qwen2-VL's processor
    assert planner_of("llava_onevision").most_sampled == 32
    with pytest.raises(ValueError, match="one frame has 48 tokens, more than 47"):
        planner.fit(NoCompression(), 47)
    assert planner_of("video_llama_3").fit(NoCompression(), 48 * 10) == 10


def test_tokens_that_the_processor_drops_are_not_counted(planner_of, tmp_path):
    """Four equal pictures: 48 tokens of the first, and one of each other; half of them are 25."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    for number in range(4):
        picture.save(tmp_path / f"{number}.png")
    planner = planner_of("video_llama_3", video=tmp_path)
    planned = planner.plan(Random(retention=0.5), 4)
    assert (planned.own_tokens, planned.tokens, planned.retention["entering_llm"]) == (51, 25, 25 / 51)
    assert planner.plan(NoCompression(), 4).tokens == 51
    with pytest.raises(ValueError, match=r"NSP.* needs whole frames, and the processor keeps only 51 tokens of this"):
        planner.plan(NSP(), 4)


def test_what_a_family_cannot_do_is_refused_as_by_the_model(planner_of):
    with pytest.raises(ValueError, match="a compressor inside the language model needs full attention"):
        planner_of("qwen3_5").plan(FastV(), 4)
    with pytest.raises(ValueError, match="acts on frames or in the vision tower"):
        planner_of("qwen2_vl").plan(build_compressor("earlytom_frames"), 4)


def test_what_cannot_be_read_is_named(planner_of, tmp_path, clips):
    with pytest.raises(VideoReadError, match=r"none\.mp4: no such file"):
        planner_of("qwen2_vl", video=tmp_path / "none.mp4")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no weights"):
        NativePlanner.of(clips / "v0.mp4", NativeArguments(str(tmp_path)), (4,))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"vocab_size": 300}, r"contradict its config\.json: \S+\.weight would be \(300, "),
        (
            {"num_hidden_layers": 10**7},
            r"text_config\.num_hidden_layers must be an integer from 1 to 1000",
        ),
        ({"layer_types": ["foo"] * 4}, r"no model can be built from .*layer_types"),
    ],
)
def test_a_configuration_that_contradicts_the_weights_is_not_planned(folder_of, tmp_path, clips, setting, message):
    folder = Path(shutil.copytree(folder_of("qwen2_5_vl"), tmp_path / "copy"))
    settings = json.loads((folder / "config.json").read_text())
    settings["text_config"] |= setting
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=message):
        NativePlanner.of(clips / "v0.mp4", NativeArguments(str(folder)), (4,))
    found = list(check_checkpoint(str(folder), None))
    assert [one.state for one in found] == ["problem"]
    assert re.search(message, found[0].text)


def test_a_video_without_placeholders_is_not_planned(planner_of):
    planner = planner_of("qwen2_5_vl")
    planner.model.config.video_token_id += 100
    with pytest.raises(ValueError, match=r"no placeholders for the tokens of the video: token ids in .*config\.json"):
        planner.plan(NoCompression(), 4)


def test_a_checkpoint_in_the_hubs_cache_is_planned_from_there(planner_of, folder_of, clips, monkeypatch):
    """The hub is not asked, and may hold a newer revision."""
    monkeypatch.setattr(checkpoint_checks, "local_folder", lambda name: folder_of("qwen2_5_vl"))
    planner = NativePlanner.of(clips / "v0.mp4", NativeArguments("owner/name"), (4,))
    assert planner.plan(NoCompression(), 4) == planner_of("qwen2_5_vl").plan(NoCompression(), 4)
