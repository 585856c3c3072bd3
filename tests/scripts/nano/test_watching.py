"""What only a trained model shows: its answers come from the video, and need what each question is about.

Eight clips with eight questions each take seconds. The margins are wide: a share of 64 answers has a standard
deviation of at most 6 points, one of 16 answers of at most 13, and every bound is several of them away from what the
model card says. Files are encoded by the installed H.264 encoder, so answers may differ a little between machines.
"""

import pytest
import torch

from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.builder import load_pretrained_model
from llava.video import read_video
from stgridpool import build_compressor
from stgridpool.decoder.session import VideoSession

FRAMES = 16


@pytest.fixture(scope="module")
def evaluate(nano):
    return nano("evaluate")


@pytest.fixture(scope="module")
def videos(nano, clips_folder):
    return nano("watching").read_set(clips_folder)


@pytest.fixture(scope="module")
def watcher(nano, shipped):
    return nano("watching").Watcher(shipped)


@pytest.fixture(scope="module")
def watched(evaluate, watcher, videos):
    return evaluate.watch_all(watcher, videos, watcher.own_pooling, FRAMES)


@pytest.fixture(scope="module")
def cheated(evaluate, watcher, videos):
    return evaluate.controls(watcher, videos, FRAMES)


def test_it_answers_from_the_video(watched):
    assert watched["all"] >= 85


def test_another_video_is_worth_no_more_than_guessing(cheated):
    assert 5 <= cheated["wrong video"]["all"] <= 50


def test_no_video_is_worth_no_more_than_guessing(cheated):
    assert cheated["no video"]["all"] <= 45


def test_shuffled_frames_break_order_and_leave_colour(cheated):
    row = cheated["shuffled frames"]
    assert (row["first"] + row["last"]) / 2 <= 65
    assert row["colour"] >= 75


def test_dropping_every_second_frame_loses_needles(watched, cheated):
    # Half of the needles are gone, and a quarter of those are guessed: 62 % are expected.
    assert cheated["every second frame"]["needle"] < watched["needle"]


def test_a_compressor_that_keeps_everything_changes_nothing(watcher, videos):
    pixels = watcher.pixels(videos[0].path, FRAMES)
    kept = watcher.encode(pixels, build_compressor("none"))
    stride_one = watcher.encode(pixels, build_compressor("bilinear", stride=1))
    assert torch.equal(kept, stride_one)
    assert watcher.answer(videos[0].prompts, kept) == watcher.answer(videos[0].prompts, stride_one)


def test_packed_answers_are_those_that_the_model_generates(watcher, videos):
    from llava.prompts import PromptBuilder

    asked = videos[1]
    watcher.model.compressor = watcher.own_pooling
    video = watcher.model.encode_video(watcher.pixels(asked.path, FRAMES))
    packed = watcher.answer(asked.prompts, video.embeds)
    prompts = PromptBuilder("qwen_1_5", watcher.tokenizer)
    generated = ""
    implementation = watcher.model.config._attn_implementation
    watcher.model.config._attn_implementation = "eager"
    for text in asked.prompts:
        ids = prompts.ids(text)[None]
        new = watcher.model.generate(ids, images=[video], modalities=["video"], do_sample=False, max_new_tokens=4)
        generated += watcher.tokenizer.decode(new[0], skip_special_tokens=True)
    watcher.model.config._attn_implementation = implementation
    assert generated == packed  # also: one letter each, then it stops


def test_shared_and_whole_prompts_give_the_same_letters(shipped, videos):
    from llava.prompts import PromptBuilder

    tokenizer, model, image_processor, _ = load_pretrained_model(
        str(shipped), None, "llava_qwen", device_map="cpu", torch_dtype="float32", attn_implementation="sdpa"
    )
    prompts = PromptBuilder("qwen_1_5", tokenizer)
    for asked in videos[:2]:
        pixels = image_processor.preprocess(read_video(asked.path, FRAMES).frames, return_tensors="pt")["pixel_values"]
        ids = [prompts.ids(text) for text in asked.prompts]
        place = int((ids[0] == IMAGE_TOKEN_INDEX).nonzero())
        with torch.inference_mode():
            video = model.encode_video(pixels)
            embed = model.get_input_embeddings()
            session = VideoSession(model, torch.cat([embed(ids[0][:place]), video.embeds]))
            shared = session.generate([embed(one[place + 1 :]) for one in ids], do_sample=False, max_new_tokens=2)
        whole = [
            model.generate(one[None], images=[video], modalities=["video"], do_sample=False, max_new_tokens=2)[0]
            for one in ids
        ]
        assert tokenizer.batch_decode(shared) == tokenizer.batch_decode(whole)


def test_scores_count_and_cluster(evaluate, nano):
    asked = nano("watching").Asked
    row = {"task_type": "Counting Problem", "answer": "A"}
    other = {"task_type": "OCR Problems", "answer": "B"}
    answers = [(asked("x", (row, other)), "AB"), (asked("y", (row, other)), "AC")]
    scores = evaluate.score(answers)
    assert scores["all"] == 75
    assert (scores["count"], scores["needle"]) == (100, 50)
    assert scores["+-"] == 49  # 1.96 * sqrt(0.125 / 2)


@pytest.mark.parametrize("limit", ["0", "-3"])
def test_a_limit_is_a_number_of_clips(evaluate, limit, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["evaluate.py", "--limit", limit])
    with pytest.raises(SystemExit):
        evaluate.main()
    assert f"error: --limit must be a whole number of clips from 1, got {limit}\n" in capsys.readouterr().err
