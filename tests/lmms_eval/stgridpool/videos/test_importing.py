"""Features in the files of STTM's code serve for videos that were never there."""

import pickle
import shutil

import pytest
import torch

from lmms_eval_stgridpool.run.llava_arguments import LlavaArguments
from lmms_eval_stgridpool.videos.importing import check_frames, import_all, read_features

WIDTH = 8  # of the tower's features
EXPECTED = (9, WIDTH)


def metadata(frames, **changes):
    times = ",".join(f"{second:.2f}s" for second in range(frames))
    return {"vid": "a", "video_time": frames + 0.5, "frame_time": times, "num_frames": frames} | changes


def write(folder, name, features, facts):
    for part in ("features", "metadata"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    torch.save(features, folder / "features" / f"{name}.pt")
    (folder / "metadata" / f"{name}.pkl").write_bytes(pickle.dumps(facts))
    return folder / "features" / f"{name}.pt", folder / "metadata" / f"{name}.pkl"


def test_the_files_of_a_video_become_an_entry(tmp_path):
    features = torch.randn(3, *EXPECTED).bfloat16()
    made = read_features(*write(tmp_path, "a", features, metadata(3)), EXPECTED, torch.float16)
    assert torch.equal(made.features, features.half())
    assert (made.times, made.duration, made.indices) == ((0.0, 1.0, 2.0), 3.5, ())


class Other:
    """A type of some program."""


@pytest.mark.parametrize(
    ("features", "facts", "message"),
    [
        ({"a": torch.zeros(3, 9, WIDTH)}, {}, "must be .frames, 9, 8. of this tower, got dict"),
        (torch.zeros(3, 16, WIDTH), {}, r"must be .frames, 9, 8. of this tower, got \(3, 16, 8\)"),
        (torch.zeros(9, WIDTH), {}, r"got \(9, 8\)"),
        (Other(), {}, "it is not a tensor that torch saved"),
        (torch.full((3, 9, WIDTH), float("nan")), {}, "the features are not finite"),
        (torch.full((3, 9, WIDTH), 1e6), {}, "the features are not finite in torch.float16"),
        (torch.zeros(2, 9, WIDTH), {}, "2 frames, but .*a.pkl lists 3 times and 3"),
        (torch.zeros(3, 9, WIDTH), {"num_frames": "3"}, "a.pkl: num_frames must be a int, got '3'"),
        (torch.zeros(3, 9, WIDTH), {"frame_time": ["0.00s"]}, "frame_time must be a str"),
        (torch.zeros(3, 9, WIDTH), {"frame_time": "0.00s,x,2.00s"}, "frame_time must be such as 0.00s,1.00s, got 'x'"),
        (torch.zeros(3, 9, WIDTH), {"vid": Other()}, "only plain data is read"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path, features, facts, message):
    files = write(tmp_path, "a", features, metadata(3, **facts))
    with pytest.raises(ValueError, match=message):
        read_features(*files, EXPECTED, torch.float16)


def test_a_folder_tells_which_frames_a_run_must_ask_for():
    def arguments(**given):
        return LlavaArguments(pretrained="x", **given)

    check_frames("F-128_fps-1", arguments(max_frames_num=128, fps=1))
    check_frames("F-180_fps-0.5", arguments(max_frames_num=180, fps=0.5))
    for given in ({"max_frames_num": 64, "fps": 1}, {"max_frames_num": 128}):
        with pytest.raises(ValueError, match="F-128_fps-1 holds frames of max_frames_num=128,fps=1: give these"):
            check_frames("F-128_fps-1", arguments(**given))
    with pytest.raises(ValueError, match="must be called F-NUMBER_fps-RATE, such as F-128_fps-1, got features"):
        check_frames("features", arguments())


def test_imported_features_are_answered_from(make_model, ask, clips, checkpoint, tmp_path):
    settings = {"max_frames_num": 8, "fps": 1, "device": "cpu", "compressor": "nsp"}
    cached = settings | {"feature_cache": str(tmp_path / "cache")}
    plain = make_model(**settings)
    loaded = plain.encoder.loader.get(clips / "v0.mp4")
    with torch.inference_mode():
        features = plain.model.language_model.get_vision_tower()(loaded.frames)
    folder, videos = tmp_path / "F-8_fps-1", tmp_path / "videos"
    facts = metadata(len(features), frame_time=",".join(f"{time:.2f}s" for time in loaded.times))
    write(folder, "a", features.bfloat16(), facts)
    write(folder, "b", torch.zeros(3, 1, 1), metadata(3))
    write(folder, "there", features.bfloat16(), facts)
    videos.mkdir()
    shutil.copy(clips / "v1.mp4", videos / "there.mp4")

    given = ",".join(f"{name}={value}" for name, value in ({"pretrained": checkpoint} | cached).items())
    found = import_all(folder, videos, given)
    assert found.videos == 1
    assert str(found) == f"1 videos imported, 2 not. Features in {tmp_path}/cache"
    assert "b.pt: the features must be" in found.failures[0]
    assert f"{videos / 'there.mp4'} is there, so a run encodes it" in found.failures[1]

    model = make_model(**cached, features_of_missing_videos=True)
    [result] = ask(model, "generate_until", [{"visuals": [str(videos / "a.mp4")]}])
    counts = result.token_counts
    assert (counts.failure, counts.frames, counts.frames_sha256) == (None, len(features), "")
    assert model._sums.totals["feature_cache_hits"] == 1
    kept = model.encoder.loader.get(videos / "a.mp4")
    assert torch.equal(kept.frames, features.bfloat16().float())
    assert kept.times == tuple(round(time, 2) for time in loaded.times)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("pretrained=x,max_frames_num=8,fps=1", "must name a folder: feature_cache=FOLDER"),
        ("pretrained=x,max_frames_num=8,fps=1,feature_cache=y", "there are no files .*F-8_fps-1/features/"),
    ],
)
def test_what_cannot_work_is_refused_before_a_model_is_loaded(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        import_all(tmp_path / "F-8_fps-1", tmp_path, given)
