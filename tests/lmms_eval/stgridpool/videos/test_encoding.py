from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from llava.encoded_video import EncodedVideo
from llava.video import VideoReadError
from lmms_eval_stgridpool.videos.encoding import Media, check_count
from lmms_eval_stgridpool.videos.last_made import LastMade
from stgridpool import Average, Chain, OracleFrames, Scorer, VideoTokens, build_compressor, compress_tokens
from stgridpool.timing import StageTimer


def test_neighbouring_questions_share_their_video():
    cache, encoded = LastMade(), []

    def encode(key):
        return cache.get(key, lambda: encoded.append(key) or Media(cache_hits=len(encoded)))

    assert encode(("a",)) is encode(("a",))
    encode(("b",))
    encode(("a",))
    encode(None)
    encode(None)
    assert encoded == [("a",), ("b",), ("a",), None, None]


def test_a_broken_video_is_tried_once():
    cache, tries = LastMade(), []

    def fail():
        tries.append(1)
        raise VideoReadError("a.mp4", "no frames")

    for _ in range(3):
        with pytest.raises(VideoReadError, match=r"a\.mp4: no frames"):
            cache.get(("a.mp4",), fail)
    assert len(tries) == 1


def test_a_number_whose_method_did_not_run_is_an_error():
    average, none = build_compressor("average", kernel_size=2), build_compressor("none")
    patches = VideoTokens.of(torch.randn(4, 6, 6, 8))
    tokens, plan = compress_tokens(average, patches, {})
    video = EncodedVideo.of(tokens, plan, patches.shape, torch.zeros(8), "frame")
    assert (len(video.embeds), video.num_newlines) == (40, 4)
    check_count(average.steps(), video)
    with pytest.raises(RuntimeError, match=r"37 visual tokens enter .* plan has 36"):
        check_count(average.steps(), replace(video, num_newlines=3))
    with pytest.raises(RuntimeError, match=r"36 visual tokens enter .*NoCompression.* settings imply 144"):
        check_count(none.steps(), video)


@dataclass(frozen=True)
class Largest(Scorer):
    def score(self, tokens, evidence):
        return tokens.features[:, 0]


def test_the_count_of_a_pruner_behind_pooling_is_checked():
    patches, chain = VideoTokens.of(torch.randn(4, 6, 6, 8)), Chain((Average(), Largest(retention=0.5)))
    tokens, plan = compress_tokens(chain, patches, {})
    check_count(chain.steps(), EncodedVideo.of(tokens, plan, patches.shape, None, "no_token"))
    other = Chain((Average(), Largest(retention=0.6)))
    with pytest.raises(RuntimeError, match=r"18 visual tokens enter .*Largest\(retention=0\.6.* settings imply 21"):
        check_count(other.steps(), EncodedVideo.of(tokens, plan, patches.shape, None, "no_token"))


@pytest.fixture(scope="module")
def encoder(make_model):
    model = make_model()
    return model._answerer.encoder


def test_videos_are_encoded_and_counted(encoder, clips):
    timer = StageTimer("cpu")
    with torch.inference_mode():
        encoded = encoder.encode([str(clips / "v0.mp4"), str(clips / "v2.mp4")], timer)
        media = encoder.compress(encoded, "What?", timer)
    assert media.frames == 5 + 8  # one a second, and the most of 12
    assert media.visual_tokens == 13 * 9  # 7x7 patches in windows of 2x2
    assert media.newline_tokens == 13 * 3
    assert [len(video.embeds) for video in media.visuals] == [5 * 12, 8 * 12]
    assert media.clips[0].times == (0, 1, 2, 3, 4)
    assert media.clips[0].duration == 5
    assert set(timer.seconds()) == {"decode", "preprocess", "vision", "projector", "compress", "wait_for_video"}


def test_frames_listed_in_a_file_are_looked_up_by_the_name_of_the_video(encoder, clips, tmp_path):
    file = tmp_path / "frames.json"
    file.write_text('{"v0.mp4": [1, 4], "v2.mp4": [0, 2, 5]}')
    before = encoder.model.compressor
    encoder.model.compressor = OracleFrames(file=str(file))
    try:
        with torch.inference_mode():
            encoded = encoder.encode([str(clips / "v2.mp4"), str(clips / "v0.mp4")], StageTimer("cpu"))
            media = encoder.compress(encoded, "What?", StageTimer("cpu"))
        frames = [sorted(set(video.plan.anchor.div(49, rounding_mode="floor").tolist())) for video in media.visuals]
        assert frames == [[0, 2, 5], [1, 4]]
        assert media.visual_tokens == 5 * 16  # 7x7 patches become 4x4
        file.write_text('{"v0.mp4": [1, 4]}')
        encoder.model.compressor = OracleFrames(file=f"{tmp_path}/../{tmp_path.name}/frames.json")
        with pytest.raises(ValueError, match=r"lists no frames of 'v2\.mp4'"):
            encoder.compress(encoded, "What?", StageTimer("cpu"))
    finally:
        encoder.model.compressor = before


def test_a_folder_of_pictures_is_a_video(encoder, tmp_path):
    for index in range(3):
        Image.new("RGB", (20, 10), (index * 50, 0, 0)).save(tmp_path / f"{index}.png")
    with torch.inference_mode():
        assert encoder.encode([str(tmp_path)], StageTimer("cpu")).media.frames == 3


def test_equal_frames_are_encoded_once(encoder, tmp_path, monkeypatch):
    """Slides: three pictures, each of them shown for two frames, and the first one again at the end."""
    shown = (0, 0, 120, 120, 240, 240, 0)
    for index, colour in enumerate(shown):
        Image.new("RGB", (20, 10), (colour, 0, 0)).save(tmp_path / f"{index}.png")
    encode, numbers = type(encoder.model).encode, []
    monkeypatch.setattr(
        type(encoder.model),
        "encode",
        lambda self, pixels, *rest: numbers.append(len(pixels)) or encode(self, pixels, *rest),
    )
    with torch.inference_mode():
        encoded = encoder.encode([str(tmp_path)], StageTimer("cpu"))
    features = encoded.videos[0].features
    assert numbers == [3]
    assert (encoded.media.frames, encoded.media.reused_frames) == (7, 4)
    assert all(torch.equal(features[shown.index(colour)], features[frame]) for frame, colour in enumerate(shown))


def test_an_empty_path_is_not_the_working_directory(encoder, tmp_path, monkeypatch):
    Image.new("RGB", (20, 10)).save(tmp_path / "0.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VideoReadError, match="the task names an empty path"):
        encoder.encode([""], StageTimer("cpu"))


def test_one_image_is_tiled_and_several_are_padded_to_squares(encoder):
    image = Image.new("RGB", (150, 90))
    with torch.inference_mode():
        one, two = (encoder.encode([image] * count, StageTimer("cpu")).media for count in (1, 2))
    # 7 x 7 tokens of the whole, and 7 rows of 2 tiles: 12 of 14 columns are not padding, and a newline follows
    assert [image.num_tokens for image in one.visuals] == [7 * 7 + 7 * (12 + 1)]
    assert [len(image.embeds) for image in two.visuals] == [7 * 7, 7 * 7]
    prompt, text = encoder.model.prompt("Who?", two.visuals, []), encoder.model.prompt("Who?", [], [])
    assert len(prompt) == len(prompt.ids) - 2 + 2 * 7 * 7 > len(text) + 2 * 7 * 7
    assert encoder.model.language_model.config.image_aspect_ratio == "anyres_max_9"


def test_other_visuals_are_refused(encoder):
    assert not encoder.encode([], StageTimer("cpu")).media.visuals
    with pytest.raises(TypeError, match="paths of videos or PIL images, got SimpleNamespace, str"):
        encoder.encode(["a.mp4", SimpleNamespace()], StageTimer("cpu"))
