"""The page in Chromium: what lights up, what the slider and the switches change, and that it needs no network."""

import numpy as np
import pytest
import torch

from stgridpool import Plan, build_compressor
from stgridpool.show import HeatMap, Trace, write_page
from stgridpool.show.colours import group_colours
from stgridpool.show.trace import Stage

SHAPE = (4, 4, 4)
COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)]
NAME = "</script><b>clip</b> & co.mp4"

pytestmark = pytest.mark.browser


def make_traces():
    """Mosaics in place of the last frame; a group over the first two; tokens lost in a layer, with a heat map."""
    ptg = Trace.of("ptg", build_compressor("ptg", strides=[1])(torch.randn(*SHAPE, 8)).plan, SHAPE)
    group = torch.full((64,), -1)
    group[[0, 1, 16, 17, 63]] = torch.tensor([0, 0, 0, 0, 1])
    merged = Trace.of("merged", Plan.merge(group, torch.tensor([0, 63])), SHAPE)
    stage = Stage.start(SHAPE).then("into the language model", Plan.keep(torch.arange(32), 64))
    pruned = stage.then("from layer 2 on", Plan.keep(torch.tensor([0, 17]), 32))
    heat = HeatMap("norm", torch.arange(64.0))
    return [ptg, merged, Trace("pruned", SHAPE, (stage, pruned), "Pruned(layer=2)", (heat,))]


@pytest.fixture(scope="module")
def tab(browser, tmp_path_factory):
    """A tab that shows the page, without network; `errors` and `requests` are lists."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    frames = np.stack([np.full((64, 64, 3), colour, np.uint8) for colour in COLOURS])
    write_page(path, frames, make_traces(), times=[0.0, 1.0, 2.5, 4.0], title=NAME)
    tab = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}).new_page()
    tab.errors, tab.asked = [], []
    tab.on("pageerror", lambda error: tab.errors.append(str(error)))
    tab.on("request", lambda request: tab.asked.append(request.url))
    tab.goto(path.as_uri())
    tab.wait_for_selector("body[data-ready=true]")
    yield tab
    assert not tab.errors
    assert {url.partition(":")[0] for url in tab.asked} <= {"file", "data", "blob"}


@pytest.fixture
def page(tab):
    """The page as it is when it opens."""
    choose(tab, "ptg")
    tab.locator("#frame").fill("0")
    tab.mouse.move(1, 1)
    return tab


def choose(tab, words):
    tab.get_by_role("button", name=words).first.click()


def point(tab, canvas, row, column, click=False):
    """Point at the middle of a cell of 4x4."""
    box = tab.locator(canvas).bounding_box()
    where = box["x"] + (column + 0.5) / 4 * box["width"], box["y"] + (row + 0.5) / 4 * box["height"]
    (tab.mouse.click if click else tab.mouse.move)(*where)


def lit(tab):
    """The patches of the frame that are lit, as the canvas lists them."""
    return [int(patch) for patch in tab.locator("#patches").get_attribute("data-lit").split()]


def colour(tab, canvas, row, column, of=4):
    """The colour in the middle of a cell."""
    script = """(canvas, [row, column, of]) => Array.from(canvas.getContext('2d').getImageData(
        canvas.width * (column + 0.5) / of, canvas.height * (row + 0.5) / of, 1, 1).data.slice(0, 3))"""
    return np.array(tab.locator(canvas).evaluate(script, [row, column, of]))


def near(found, expected, by=6):
    return bool((np.abs(found.astype(int) - np.array(expected)) <= by).all())


def frames_lit(tab):
    strip = tab.locator(".strip.active canvas")
    return [number for number in range(4) if "lit" in (strip.nth(number).get_attribute("class") or "").split()]


def test_a_token_under_the_pointer_lights_up_its_sources(page):
    page.locator("#frame").fill("3")
    point(page, "#tokens", 3, 3)  # the last token of the mosaic: the last window of the last frame
    assert lit(page) == [10, 11, 14, 15]
    assert frames_lit(page) == [3]
    assert near(colour(page, "#patches", 3, 3), COLOURS[3])
    assert colour(page, "#patches", 0, 0).max() < 60  # everything else is dark
    assert page.locator("#readout").inner_text() == "Token 63, standing at 4.0 s, is made of 4 patches at 4.0 s."
    page.mouse.move(1, 1)
    assert lit(page) == []
    assert page.locator("#readout").inner_text().startswith("Point at a token")


def test_a_mosaic_is_drawn_as_one_and_its_tokens_come_from_other_frames(page):
    page.locator("#frame").fill("3")
    tiles = [colour(page, "#tokens", row, column) for row in (0, 2) for column in (0, 2)]
    assert all(near(tile, expected) for tile, expected in zip(tiles, COLOURS, strict=True))
    point(page, "#tokens", 0, 0, click=True)
    assert (lit(page), frames_lit(page)) == ([0, 1, 4, 5], [0])
    assert page.locator("#patches-title").inner_text() == "Patches at 0.0 s"  # where the sources are
    assert near(colour(page, "#patches", 0, 0), COLOURS[0])
    page.locator("#frame").fill("0")  # a click keeps the token
    assert lit(page) == [0, 1, 4, 5]
    page.keyboard.press("Escape")
    assert lit(page) == []


def test_the_slider_walks_the_frames(page):
    assert page.locator("#clock").inner_text() == "frame 1 of 4 · 0.0 s"
    assert near(colour(page, "#patches", 3, 3), np.array(COLOURS[0]) * 0.9, by=21)
    page.locator("#frame").fill("2")
    assert page.locator("#clock").inner_text() == "frame 3 of 4 · 2.5 s"
    assert near(colour(page, "#patches", 3, 3), np.array(COLOURS[2]) * 0.9, by=21)
    page.locator("body").press("ArrowLeft")
    assert page.locator("#clock").inner_text() == "frame 2 of 4 · 1.0 s"


def test_the_switch_changes_the_method(page):
    assert page.locator("#summary").inner_text().startswith("64 tokens of 64 patches")
    choose(page, "merged")
    assert page.locator("#summary").inner_text() == "2 tokens of 64 patches; 92% of the patches are lost"
    assert page.locator("#tokens-title").inner_text() == "What the language model reads here 1 token"
    page.locator("body").press("ArrowUp")
    assert page.locator("#summary").inner_text().startswith("64 tokens")
    page.locator(".strip").nth(2).locator("canvas").nth(1).click()  # a frame of the third method
    assert page.locator("#summary").inner_text().startswith("2 tokens of 64 patches, from layer 2 on")
    assert page.locator("#clock").inner_text() == "frame 2 of 4 · 1.0 s"


def test_a_group_has_one_colour_in_all_frames_and_lights_up_in_all(page):
    choose(page, "merged")
    tints = []
    for frame in (0, 1):
        page.locator("#frame").fill(str(frame))
        dimmed = np.array(COLOURS[frame]) * (0.5 + 0.5 * 0.5)  # each patch is a quarter of the token
        tints.append((colour(page, "#patches", 0, 0) - 0.45 * dimmed) / 0.55)
    assert near(tints[0], group_colours()[0], by=12)
    assert near(tints[1], group_colours()[0], by=12)
    page.locator("#frame").fill("0")
    point(page, "#tokens", 0, 0)
    assert (lit(page), frames_lit(page)) == ([0, 1], [0, 1])
    words = page.locator("#readout").inner_text()
    assert words == "Token 0, standing at 0.0 s, is made of 4 patches of 2 frames: 0.0 s 50 %, 1.0 s 50 %."


def test_a_patch_under_the_pointer_tells_where_it_went(page):
    choose(page, "merged")
    page.locator("#frame").fill("1")
    point(page, "#patches", 0, 1)
    assert page.locator("#readout").inner_text() == "Row 1, column 2: this patch is in 1 token: 0 at 0.0 s."
    assert frames_lit(page) == [0, 1]
    point(page, "#patches", 3, 3)
    assert page.locator("#readout").inner_text() == "Row 4, column 4: this patch is in no token."
    grey = colour(page, "#patches", 3, 3)
    assert grey.max() < 60


def test_points_inside_the_language_model_can_be_compared(page):
    choose(page, "pruned")
    assert page.locator("#tokens-title").inner_text().endswith("1 token")
    choose(page, "into the language model")
    assert page.locator("#tokens-title").inner_text().endswith("16 tokens")


def test_heat_maps_are_a_view(page):
    choose(page, "pruned")
    page.locator("#frame").fill("3")
    choose(page, "norm")
    assert page.locator("#patches-title").inner_text() == "norm from 0.00 to 63.0"
    assert colour(page, "#patches", 3, 3).sum() > colour(page, "#patches", 0, 0).sum()  # 63 and 48
    page.locator("#frame").fill("0")
    assert colour(page, "#patches", 0, 0).max() < 60


def test_the_pictures_play(page):
    choose(page, "Play")
    page.wait_for_function("document.getElementById('frame').value === '2'", timeout=60_000)
    choose(page, "Pause")
    assert page.get_by_role("button", name="Play").count() == 1


def test_names_are_text(page):
    assert page.title() == f"Tokens of {NAME}"
    assert page.locator("#facts").inner_text() == f"{NAME}: 4 frames of 4 \u00d7 4 patches"
    assert page.locator("#facts b").count() == 0
