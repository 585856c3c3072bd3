"""Evidence from the vision part of native models."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from stgridpool.adapters.adapter import Adapter
from stgridpool.evidence import Need


def tower_offers(adapter: Adapter, model: Any) -> Collection[type[Need]]:
    """Return the kinds of evidence that the vision part of a model can give."""
    del adapter, model
    return ()
