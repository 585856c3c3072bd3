"""Training sees videos exactly as the model encodes them later."""

import pytest
import torch

from stgridpool import build_compressor


@pytest.fixture(scope="module")
def model(nano, tmp_path_factory):
    folder = tmp_path_factory.mktemp("untrained")
    nano("checkpoint").write_description(folder)
    return nano("checkpoint").new_model(folder, seed=2).eval()


def test_a_batch_is_encoded_as_its_videos_one_by_one(nano, model):
    layouts = nano("layouts")
    pixels = torch.randn(2, 3, 3, 98, 98, generator=torch.Generator().manual_seed(0))
    for layout in layouts.MIX:
        if layout.kept < 1:
            continue
        with torch.no_grad():
            seen = layouts.encode_clips(model, pixels, layout, torch.Generator().manual_seed(0))
            model.compressor = layout.compressor
            for number in range(2):
                single = model.encode_video(pixels[number]).embeds
                torch.testing.assert_close(seen.embeds[number], single, atol=1e-5, rtol=1e-5)


def test_frames_end_with_a_newline(nano, model):
    layouts = nano("layouts")
    pixels = torch.randn(1, 5, 3, 98, 98, generator=torch.Generator().manual_seed(0))
    for kept in (1.0, 0.4):
        layout = layouts.Layout(build_compressor("bilinear"), kept)
        with torch.no_grad():
            seen = layouts.encode_clips(model, pixels, layout, torch.Generator().manual_seed(4))
        newline = model.get_model().image_newline
        ends = seen.embeds[0, seen.frame_ends]
        assert torch.equal(ends, newline.expand_as(ends))
        assert seen.frames.tolist() == [0, 1, 2, 3, 4]
        assert seen.frame_ends[-1] == seen.embeds.shape[1] - 1
    assert layouts.encode_clips(model, pixels, layouts.OWN, torch.Generator()).frame_ends.tolist() == [
        19,
        39,
        59,
        79,
        99,
    ]


def test_too_long_clips_are_pooled(nano):
    layouts = nano("layouts")
    generator = torch.Generator().manual_seed(0)
    drawn = [layouts.draw_layout(12, 8, generator) for _ in range(300)]
    whole = [layout for layout in drawn if layout.compressor == layouts.WHOLE.compressor]
    assert all(12 * 0.4 <= 8 and layout.kept < 1 for layout in whole)
    assert sum(layout == layouts.OWN for layout in drawn) > 100
    assert all(0.2 <= layout.kept <= 1 for layout in drawn)
