"""Images beside videos where both have one placeholder: clips tell them apart; images stay, or are compressed, too."""

import pytest
import torch

import stgridpool
from native_models.families import build
from native_models.prompts import make_clips, make_frames, make_inputs
from stgridpool.adapters import adapter_for, compress_inputs

FRAMES = make_frames(4, 32, 32)
WIDE = make_frames(1, 32, 96)[0]  # InternVL cuts it into three tiles and a thumbnail: 4 * 16 tokens in one run
PROMPT = ["See", WIDE, "and", FRAMES, "What happens?"]
pytestmark = pytest.mark.adapters


@pytest.fixture(scope="module")
def loaded():
    model, processor = build("internvl")
    return model, make_inputs(processor, PROMPT, ["Look", FRAMES, "Why?"])


@pytest.mark.parametrize("images", [False, True])
def test_counts(loaded, images):
    model, inputs = loaded
    clips = [[("image", 1), ("video", 4)], [("video", 4)]]
    prompt = compress_inputs(model, inputs, "norm_topk", retention=0.25, images=images, clips=clips)
    (image, video), (other,) = prompt.visuals
    assert [visual.run.kind for visual in (image, video, other)] == ["image", "video", "video"]
    assert [len(visual.tokens) for visual in (image, video, other)] == [16 if images else 64, 16, 16]
    pictures = adapter_for(model).pictures(model, inputs).flatten(0, 1)
    if not images:
        assert torch.equal(image.tokens.features, pictures[:64])
    assert torch.equal(other.tokens.features, pictures[128:][other.place])


@pytest.mark.parametrize("images", [False, True])
def test_steps_inside_the_language_model_act_on_images_only_if_asked_for(loaded, images):
    model, _ = loaded
    inputs = make_inputs(build("internvl")[1], PROMPT)
    options = {"images": images, "clips": make_clips(PROMPT), "layer": 2, "retention": 0.5}
    with stgridpool.compress(model, "fastv", of="last_layer", **options) as block:
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
    plans = block.last.inside.last.plans[0][0]
    assert [len(plan.rows) for plan in plans] == ([32, 32] if images else [32])  # of 64 each
    assert block.last.inside.last.kept[0].sum() == len(block.last.visual_mask[0]) - 32 * len(plans)


def test_two_videos_are_compressed_apart(loaded):
    model, _ = loaded
    prompt = [FRAMES, "and", FRAMES[::-1].copy(), "Why?"]
    inputs = make_inputs(build("internvl")[1], prompt)
    together = compress_inputs(model, inputs, "stride", retention=0.5)
    apart = compress_inputs(model, inputs, "stride", retention=0.5, clips=make_clips(prompt))
    assert [len(visual.tokens) for visual in apart.visuals[0]] == [64 // 2, 64 // 2]
    assert [len(visual.tokens) for visual in together.visuals[0]] == [128 // 2]


def test_images_without_clips_are_noticed(loaded):
    model, inputs = loaded
    with pytest.raises(ValueError, match=r"prompt 0 has an image of several tiles.*pass clips"):
        compress_inputs(model, inputs, "stride")


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        (["See", FRAMES[0], "What is it?"], 1),
        (["See", FRAMES[0], "and also that", FRAMES, "What happens?"], 5),
        ([make_frames(101, 32, 32), "What happens?"], None),
    ],
)
def test_pictures_that_may_be_images_are_logged(loaded, caplog, prompt, count):
    model, _ = loaded
    inputs = make_inputs(build("internvl")[1], prompt)
    compress_inputs(model, inputs, "stride")
    said = [record.getMessage() for record in caplog.records if "frames of one video" in record.getMessage()]
    assert [text.partition(";")[0] for text in said] == [
        f"prompt 0: its {count} pictures are compressed as frames of one video" for _ in said
    ]
    assert bool(said) == (count is not None)
    caplog.clear()
    compress_inputs(model, inputs, "stride", clips=make_clips(prompt))
    assert not caplog.records


def test_clips_must_match_the_prompt(loaded):
    model, inputs = loaded
    image, video = ("image", 1), ("video", 4)
    with pytest.raises(ValueError, match=r"prompt 1 has 4 runs of placeholders, but its clips are \[\('video', 3\)\]"):
        compress_inputs(model, inputs, "stride", clips=[[image, video], [("video", 3)]])
    with pytest.raises(ValueError, match=r"clips must have one entry for each of the 2 prompts, got 1"):
        compress_inputs(model, inputs, "stride", clips=[[image, video]])
    with pytest.raises(ValueError, match=r"a clip must be \(\"image\" or \"video\", count\), got \('film', 4\)"):
        compress_inputs(model, inputs, "stride", clips=[[image, video], [("film", 4)]])


def test_a_cut_prompt_is_noticed(loaded):
    model, _ = loaded
    inputs = make_inputs(build("internvl")[1], [FRAMES, "Why?"])
    cut = inputs | {name: inputs[name][:, :-60] for name in ("input_ids", "attention_mask")}
    with pytest.raises(ValueError, match=r"for \d pictures, but there are 4; do not truncate prompts"):
        compress_inputs(model, cut, "stride")
