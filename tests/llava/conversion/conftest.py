"""Changes to JSON files of converted checkpoints."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def edit_json() -> Callable[..., None]:
    """Function that sets entries of a JSON file; None removes one."""

    def edit(path: Path, **settings: Any) -> None:
        content = {**json.loads(path.read_text()), **settings}
        path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))

    return edit
