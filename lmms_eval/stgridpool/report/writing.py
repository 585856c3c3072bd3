"""Files of a report."""

from pathlib import Path

from lmms_eval_stgridpool.report.content import Report
from lmms_eval_stgridpool.report.markdown import to_latex, to_markdown
from lmms_eval_stgridpool.report.page import to_html


def write_report(report: Report, path: Path) -> list[Path]:
    """Write a report in the format that the path's ending names, and return the files.

    ``.png`` writes a file for each plot, named by the path and the plot; ``.md`` links to such files beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        return _write_plots(report, path)
    if path.suffix == ".md":
        plots = _write_plots(report, path)
        path.write_text(to_markdown(report, [plot.name for plot in plots]), encoding="utf-8")
        return [path, *plots]
    text = to_html(report) if path.suffix == ".html" else to_latex(report)
    path.write_text(text, encoding="utf-8")
    return [path]


def _write_plots(report: Report, path: Path) -> list[Path]:
    written = []
    for plot in report.plots:
        target = path.with_name(f"{path.stem}_{plot.name}.png")
        plot.figure.savefig(target, dpi=160)
        written.append(target)
    return written
