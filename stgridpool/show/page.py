"""The page: traces of one video in a single HTML file, which needs no network.

Everything that is drawn is computed here; the page draws it. Numbers travel as one compressed block of 32-bit words.
"""

from __future__ import annotations

import base64
import html
import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stgridpool.show.colours import group_colours, heat_colours, scaled
from stgridpool.show.drawing import Drawing
from stgridpool.show.sheet import check_same_video, summary
from stgridpool.show.trace import HeatMap, Trace

_SCRIPTS = ("data.js", "draw.js", "words.js", "strips.js", "page.js")
_LONGEST_SIDE, _QUALITY = 640, 88  # of the frames in the page: pixels, and JPEG's 0 to 95


def write_page(
    path: str | Path,
    frames: NDArray[np.uint8],
    traces: Sequence[Trace],
    times: Sequence[float] | None = None,
    title: str = "video",
) -> None:
    """Write traces as a page in which pointing at a token lights up its sources.

    Args:
        path: The file to write.
        frames: uint8 RGB (T, h, w, 3), a frame for each frame of the patches.
        traces: At least one, of the same video.
        times: Time of each frame, in seconds; None if not known.
        title: What the page calls the video.

    Raises:
        ValueError: If the traces are of different videos, or the frames are not those of the traces.
    """
    check_same_video(frames, traces)
    words = _Words()
    data = {
        "title": title,
        "shape": traces[0].shape,
        "aspect": frames.shape[2] / frames.shape[1],
        "times": None if times is None else list(times),
        "frames": [_data_uri(frame) for frame in frames],
        "colours": group_colours(),
        "heat": heat_colours(np.linspace(0, 1, 64)).tolist(),
        "methods": [_method(trace, words) for trace in traces],
    }
    data["words"] = words.packed()
    Path(path).write_text(_filled(title, data), encoding="utf-8")


class _Words:
    """A block of 32-bit words, and where each array lies in it."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._count = 0

    def add(self, values: NDArray[Any]) -> tuple[str, int, int]:
        """Append an array, and return its type, its first word and its number of words."""
        kind = "float" if np.issubdtype(values.dtype, np.floating) else "int"
        flat = values.astype("<f4" if kind == "float" else "<i4").ravel()
        self._parts.append(flat.tobytes())
        self._count += len(flat)
        return kind, self._count - len(flat), len(flat)

    def packed(self) -> str:
        """Return the block, compressed, in base64."""
        return base64.b64encode(zlib.compress(b"".join(self._parts), 9)).decode()


def _method(trace: Trace, words: _Words) -> dict[str, Any]:
    drawings = [Drawing.of(stage, trace.shape) for stage in trace.stages]
    return {
        "name": trace.name,
        "options": trace.compressor,
        "summary": summary(trace, drawings[-1]),
        "stages": [
            {"label": stage.label, "count": len(drawing), "arrays": _arrays(drawing, words)}
            for stage, drawing in zip(trace.stages, drawings, strict=True)
        ],
        "heatMaps": [_heat_map(heat, words) for heat in trace.heat_maps],
    }


def _arrays(drawing: Any, words: _Words) -> dict[str, Any]:
    values = {field.name: getattr(drawing, field.name) for field in fields(drawing)}
    return {name: _arrays(value, words) if is_dataclass(value) else words.add(value) for name, value in values.items()}


def _heat_map(heat: HeatMap, words: _Words) -> dict[str, Any]:
    values = heat.values.numpy()
    known = values[~np.isnan(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    return {"label": heat.label, "low": low, "high": high, "values": words.add(scaled(values))}


def _data_uri(frame: NDArray[np.uint8]) -> str:
    image = Image.fromarray(frame)
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _filled(title: str, data: dict[str, Any]) -> str:
    assets = files("stgridpool.show") / "assets"
    scripts = "\n".join((assets / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    parts = {
        "TITLE": html.escape(title),
        "STYLE": (assets / "page.css").read_text(encoding="utf-8"),
        "SCRIPT": scripts,
        "DATA": json.dumps(data).replace("<", "\\u003c"),  # no text of the data can end the element that holds it
    }
    page = (assets / "page.html").read_text(encoding="utf-8")
    head, *rest = page.split("@@")
    return head + "".join(parts.get(part, part) for part in rest)
