"""The page of a report in Chromium: its tables sort, and it needs no network."""

import pytest

from lmms_eval_stgridpool.report.content import make_report
from lmms_eval_stgridpool.report.runs import read_task_runs
from lmms_eval_stgridpool.report.writing import write_report

pytestmark = pytest.mark.browser


@pytest.fixture
def tab(browser, write_run, tmp_path):
    runs = {"b": ("AAAAAB", 900), "c": ("AABBAB", 1500), "a": ("AAAAAA", 1000)}
    report = make_report(read_task_runs([write_run(name, *run) for name, run in runs.items()]))
    (path,) = write_report(report, tmp_path / "report.html")
    tab = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}).new_page()
    asked, errors = [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(path.as_uri())
    yield tab
    tab.close()
    assert not errors
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}


def order(tab):
    """Names of the runs in the first table."""
    return tab.locator("table").first.locator("tbody tr td:first-child").all_inner_texts()


def test_a_click_on_a_heading_sorts_by_its_numbers(tab):
    assert order(tab) == ["b", "c", "a"]
    heading = tab.locator("th", has_text="tokens/video").first
    heading.click()
    assert order(tab) == ["c", "a", "b"]  # 1,500 1,000 900
    heading.click()
    assert order(tab) == ["b", "a", "c"]
    tab.locator("th", has_text="run").first.click()
    assert order(tab) == ["c", "b", "a"]


def test_plots_are_in_the_page(tab):
    assert tab.locator("figure svg").count() == 3
    assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
