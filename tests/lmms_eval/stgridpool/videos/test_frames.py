"""Steps on frames in the plug-in: in the loader, counts, the feature cache, and a sweep."""

import torch
from PIL import Image

from lmms_eval_stgridpool.sweep import SweptModel
from stgridpool import STGridPool, build_compressor
from stgridpool.compressors.image_grid import ImageGrid
from stgridpool.timing import StageTimer

TWO_OF_FOUR = {"compressor": "image_grid", "compressor_args": {"frames": 4}}


def encoded(model, path):
    with torch.inference_mode():
        videos = model.encoder.encode([str(path)], StageTimer("cpu"))
        return videos, model.encoder.compress(videos, "What?", StageTimer("cpu"))


def test_counts_are_those_of_pictures(make_model, clips):
    """Eight frames, two pictures of them, and 3x3 tokens of each."""
    videos, media = encoded(
        make_model(compressor="image_grid+st_gridpool", compressor_args={"image_grid": {"frames": 4}}), clips / "v2.mp4"
    )
    assert (media.frames, len(videos.videos[0].features), media.visual_tokens) == (8, 2, 2 * 9)
    assert (media.visuals[0].source_shape, media.visuals[0].shape) == ((8, 7, 7), (2, 3, 3))


def test_equal_pictures_are_encoded_once(make_model, tmp_path):
    """Eight slides, of which the first four and the last four make the same picture."""
    for index, colour in enumerate((0, 80, 160, 240) * 2):
        Image.new("RGB", (20, 10), (colour, 0, 0)).save(tmp_path / f"{index}.png")
    videos, media = encoded(make_model(**TWO_OF_FOUR), tmp_path)
    assert (media.frames, media.reused_frames) == (8, 1)
    assert torch.equal(*videos.videos[0].features)


def test_equal_frames_are_all_encoded_if_asked_for(make_model, tmp_path):
    for index in range(3):
        Image.new("RGB", (20, 10)).save(tmp_path / f"{index}.png")
    found = [encoded(make_model(reuse_frames=reuse), tmp_path) for reuse in (True, False)]
    assert [media.reused_frames for _, media in found] == [2, 0]
    torch.testing.assert_close(*(videos.videos[0].features for videos, _ in found))


def test_evidence_follows_equal_frames(make_model, tmp_path):
    """Attention and keys of four slides, of which the third is the first one again, as if all were encoded."""
    for index, colour in enumerate((0, 90, 0, 240)):
        Image.new("RGB", (20, 10), (colour, 0, 0)).save(tmp_path / f"{index}.png")
    found = [encoded(make_model(compressor="visionzip", reuse_frames=reuse), tmp_path) for reuse in (True, False)]
    (once, every), media = ([videos.videos[0].evidence for videos, _ in found], [media for _, media in found])
    assert [one.reused_frames for one in media] == [1, 0]
    assert {type(need).__name__ for need in once} == {"AttentionReceived", "TowerKeys"}
    for need, value in every.items():
        torch.testing.assert_close(once[need], value)
        assert len(value) == 4 * 49
    torch.testing.assert_close(*(one.visuals[0].embeds for one in media))


def test_the_feature_cache_tells_frames_from_pictures(make_model, clips, tmp_path):
    def hits(**arguments):
        return encoded(make_model(feature_cache=str(tmp_path), **arguments), clips / "v2.mp4")[1].cache_hits

    assert [hits(), hits(**TWO_OF_FOUR), hits(compressor="image_grid")] == [0, 0, 0]
    assert [hits(), hits(**TWO_OF_FOUR), hits(compressor="image_grid")] == [1, 1, 1]
    before = encoded(make_model(**TWO_OF_FOUR), clips / "v2.mp4")[1].visuals[0]
    again = encoded(make_model(feature_cache=str(tmp_path), **TWO_OF_FOUR), clips / "v2.mp4")[1].visuals[0]
    assert torch.equal(before.embeds, again.embeds)


def test_a_sweep_reads_pictures_of_its_own(checkpoint, make_model, ask):
    methods = [
        STGridPool(),
        ImageGrid(frames=4),
        STGridPool(preset="ablation/image_gridding"),
        build_compressor("average"),
    ]
    settings = {"pretrained": str(checkpoint), "max_frames_num": 8, "device": "cpu"}
    sweep = SweptModel(**settings).for_each(methods)
    assert [len({id(sweep[one].encoder) for one in ones}) for ones in ((0, 3), (0, 1, 2))] == [1, 3]
    documents = [{"visuals": [name], "gen_kwargs": {"max_new_tokens": 4}} for name in ("v0.mp4", "v2.mp4", "v0.mp4")]
    found = [
        [(one.text, one.token_counts.visual_tokens) for one in ask(model, "generate_until", documents)]
        for model in sweep
    ]
    assert [counts for (_, counts), *_ in found] == [5 * 9, 2 * 16, 5 * 9, 5 * 9]
    alone = make_model(compressor="st_gridpool", compressor_args={"preset": "ablation/image_gridding"})
    assert found[2] == [(one.text, one.token_counts.visual_tokens) for one in ask(alone, "generate_until", documents)]


MERGING = {"layers": [-2, -1], "threshold": -1, "inner_retention": 1, "tokens_per_frame": 4}


def test_frames_merged_in_the_tower(make_model, clips, tmp_path):
    """All frames go into the tower, equal ones, too; what was merged comes back from the cache."""
    for index, colour in enumerate((0, 80, 160, 240) * 2):
        Image.new("RGB", (20, 10), (colour, 0, 0)).save(tmp_path / f"{index}.png")
    arguments = {"compressor": "earlytom", "compressor_args": MERGING}
    videos, media = encoded(make_model(**arguments), tmp_path)
    assert (media.frames, media.reused_frames, media.visual_tokens) == (8, 0, 32)
    assert len(videos.videos[0].features) < 8
    cache = tmp_path / "cache"
    cache.mkdir()
    found = [encoded(make_model(feature_cache=str(cache), **arguments), clips / "v2.mp4")[1] for _ in range(2)]
    assert [media.cache_hits for media in found] == [0, 1]
    assert torch.equal(*(media.visuals[0].embeds for media in found))
    assert found[1].visuals[0].source_shape == (8, 7, 7)
    assert encoded(make_model(feature_cache=str(cache)), clips / "v2.mp4")[1].cache_hits == 0


def test_pictures_whose_tower_merges_them(make_model, clips):
    """Eight frames in pairs are four pictures, of which the two in the middle become one."""
    options = {"image_grid": {"frames": 2}, "earlytom": {**MERGING, "mixing": "mean"}}
    videos, media = encoded(make_model(compressor="image_grid+earlytom", compressor_args=options), clips / "v2.mp4")
    assert len(videos.videos[0].features) == 3
    assert media.visual_tokens == 4 * 4
    [video] = media.visuals
    assert video.source_shape == (8, 7, 7)
    assert set((video.plan.flatten().rows.sources // 49).tolist()) == set(range(8))


def test_merging_in_the_tower_joins_methods_in_front_and_inside(make_model, clips, ask):
    """Eight frames become three; NSP leaves 3x3 tokens of each, of which half enter the last layer."""
    options = {**MERGING, "mixing": "mean"}
    merging = {name: options[name] for name in ("layers", "threshold", "mixing")}
    arguments = {"earlytom_frames": merging, "fastv": {"layer": 1, "retention": 0.5}}
    model = make_model(compressor="earlytom_frames+nsp+fastv", compressor_args=arguments)
    [answer] = ask(model, "generate_until", [{"visuals": ["v2.mp4"], "gen_kwargs": {"max_new_tokens": 2}}])
    facts = answer.token_counts
    assert (facts.frames, facts.visual_tokens) == (8, 27)
    assert (facts.kept_tokens["last_layer"], facts.full_tokens) == (13, 8 * 16)  # its own pooling leaves 16 of a frame
