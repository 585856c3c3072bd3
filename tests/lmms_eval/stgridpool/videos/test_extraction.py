"""Features of native models and of NVILA, extracted ahead of time."""

import pytest

from lmms_eval_stgridpool.video_hf import VideoHf
from lmms_eval_stgridpool.videos.extraction import extract_all


@pytest.mark.parametrize("name", ["qwen3_vl", "video_llama_3"])
def test_an_evaluation_finds_what_was_extracted(folder_of, clips, ask, tmp_path, name):
    """Levels of DeepStack and dropped tokens are kept, too; methods that ask the tower for nothing more share it."""
    given = {"pretrained": str(folder_of(name)), "device": "cpu", "torch_dtype": "float32", "max_frames_num": 4}
    cached = given | {"feature_cache": str(tmp_path / "features")}
    model_args = ",".join(f"{option}={value}" for option, value in cached.items())
    found = extract_all([clips / "v0.mp4", clips / "v1.mp4"], [], model_args, [])
    assert (found.videos, found.known, found.failures) == (2, 0, ())
    assert extract_all([clips / "v0.mp4"], [], model_args, []).known == 1
    documents = [{"visuals": ["v0.mp4"]}, {"visuals": ["v1.mp4"]}]
    method = {"compressor": "random", "compressor_args": {"retention": 0.5}}
    cached, plain = VideoHf(**cached, **method), VideoHf(**given, **method)
    answers = [[one.text for one in ask(model, "generate_until", documents)] for model in (cached, plain)]
    assert answers[0] == answers[1]
    assert cached._sums.totals["feature_cache_hits"] == 2


def test_nvila_finds_what_was_extracted(golden, clips, make_model, ask, tmp_path):
    cached = {"pretrained": str(golden / "nvila" / "ckpt-video"), "feature_cache": str(tmp_path / "features")}
    model_args = ",".join(f"{option}={value}" for option, value in {**cached, "device": "cpu"}.items())
    assert extract_all([clips / "v0.mp4"], [], model_args, []).failures == ()
    model = make_model(**cached, max_frames_num=None, compressor="nsp")
    ask(model, "generate_until", [{"visuals": ["v0.mp4"]}])
    assert model._sums.totals["feature_cache_hits"] == 1
