"""A report as one HTML page that needs no network."""

import base64
import io
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure

from lmms_eval_stgridpool.report.content import Report


def to_html(report: Report) -> str:
    """Write a report as a page; plots and pictures are in it."""
    loader = PackageLoader("lmms_eval_stgridpool.report", "assets")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    plots = [(plot.caption, _svg(plot.figure)) for plot in report.plots]
    examples = [(example, _data(example.pictures)) for example in report.examples]
    return environment.get_template("report.html").render(report=report, plots=plots, examples=examples)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _data(pictures: Sequence[bytes]) -> list[str]:
    return [f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}" for picture in pictures]
