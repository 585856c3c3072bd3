"""A compressor as a command line names it, and the options with which it leaves a retention."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

from lmms_eval_stgridpool.kept.paths import folder_name
from lmms_eval_stgridpool.run.model_args import parse_model_args
from stgridpool import Compressor, build_compressor
from stgridpool.budget import BudgetError
from stgridpool.budget_remarks import budget_remarks
from stgridpool.chain import Chain
from stgridpool.compressors import COMPRESSORS
from stgridpool.equal_budget import Reference, meet, planned_retention
from stgridpool.options import json_object


@dataclass(frozen=True)
class Choice:
    """A compressor as the command line names it: NAME or NAME:OPTIONS, the options being a JSON object.

    NAME may be that of another package's method, ``module:Class``.
    """

    name: str
    options: dict[str, Any]
    label: str | None = None
    retention: float | None = None  # that its options were chosen for

    @classmethod
    def parse(cls, text: str) -> "Choice":
        """Read the words of the command line.

        Raises:
            ValueError: If they name no compressor.
        """
        is_ours = text.partition(":")[0] in COMPRESSORS  # others may have a colon in their names
        name = text.partition(":" if is_ours else ":{")[0]
        try:
            choice = cls(name, json_object("its options", text[len(name) + 1 :] or "{}"))
            choice.build()
        except (ValueError, TypeError) as error:
            raise ValueError(f"{text}: {error}") from error
        return choice

    def at(self, retention: float, of: str, reference: Reference) -> "Choice":
        """Return the same method with options that leave `retention`, one of the definitions `of` retention.

        Raises:
            ValueError: If it cannot.
        """
        method = meet(self.build(), retention, of, reference)
        if isinstance(method, Chain):
            parts = zip(self.name.split("+"), method.methods, strict=True)
            options = {name: needed for name, one in parts if (needed := _options(name, one))}
        else:
            options = _options(self.name, method)
        return Choice(self.name, options, f"{self.folder}@{retention:g}", retention)

    def build(self) -> Compressor:
        """Build the compressor."""
        return build_compressor(self.name, **self.options)

    @property
    def folder(self) -> str:
        """Return the name of the run."""
        if self.label is not None:
            return self.label
        return folder_name([self.name, *(f"{option}={value}" for option, value in self.options.items())])

    @property
    def model_args(self) -> str:
        """Return the compressor's name in the --model_args of a separate run."""
        options = json.dumps(self.options, separators=(",", ":"))
        return f"compressor={self.name}" + (f",compressor_args={options}" if self.options else "")


def check_choices(choices: Sequence[Choice], model_args: str) -> None:
    """Check the compressors of a sweep.

    Args:
        choices: The compressors.
        model_args: Arguments of the model.

    Raises:
        ValueError: If there is no compressor, one is named twice, or `model_args` hold one.
    """
    if not choices:
        raise ValueError("name at least one compressor")
    if len({choice.folder for choice in choices}) < len(choices):
        raise ValueError("a compressor is named twice")
    for name in sorted({"compressor", "compressor_args"} & set(parse_model_args(model_args))):
        raise ValueError(
            f"--model_args of a sweep holds {name}, which would be ignored; name its compressors as COMPRESSOR"
        )


def at_retentions(
    choices: Sequence[Choice], retentions: Sequence[float], of: str, reference: Reference, num_frames: int
) -> tuple[list[Choice], list[str]]:
    """Give every compressor the options for every retention.

    Args:
        choices: The compressors.
        retentions: Shares of the checkpoint's own tokens to leave, 0 to 1.
        of: Which retention, one of `stgridpool.retention.DEFINITIONS`.
        reference: What retention is measured against.
        num_frames: Maximum number of frames of a video.

    Returns:
        The compressors that can leave it, retention by retention; and remarks on those that cannot, or not exactly.
    """
    found, remarks = [], []
    for retention, choice in product(retentions, choices):
        try:
            one = choice.at(retention, of, reference)
            left = planned_retention(one.build(), num_frames, reference)[of]
            said = remarks_on(one, reference, num_frames)
        except ValueError as error:
            remarks.append(f"{choice.folder}@{retention:g}: left out: {error}")
            continue
        of_steps = len(one.build().steps())  # each rounds down by less than a token
        if left is not None and abs(left - retention) * reference.own_count(num_frames) >= of_steps:
            sizes = "it comes in whole sizes, and this is the nearest"
            why = "what its methods leave depends on the number of frames" if isinstance(one.build(), Chain) else sizes
            remarks.append(f"{one.folder}: leaves {100 * left:.1f} % of {num_frames} frames: {why}")
        remarks += said
        found.append(one)
    return found, remarks


def remarks_on(choice: Choice, reference: Reference, num_frames: int) -> list[str]:
    """Say where a compressor does not leave exactly its budget, see `budget_remarks`.

    Raises:
        ValueError: If the compressor cannot work in the model.
    """
    method = choice.build().for_depth(reference.num_layers)
    return [f"{choice.folder}: {remark}" for remark in budget_remarks(method, num_frames, reference)]


def remarks_on_all(choices: Sequence[Choice], reference: Reference, num_frames: int) -> list[str]:
    """Say where compressors do not leave exactly the budgets of their options, see `budget_remarks`.

    A compressor that cannot meet its budget on so many frames gets no remark: videos of the run may have other numbers.

    Raises:
        ValueError: If a compressor cannot work in the model; the message names it.
    """
    remarks = []
    for choice in choices:
        try:
            remarks += remarks_on(choice, reference, num_frames)
        except BudgetError:
            continue
        except ValueError as error:
            raise ValueError(f"{choice.folder}: {error}") from error
    return remarks


def _options(name: str, method: Compressor) -> dict[str, Any]:
    """Return the options with which `name` builds `method`, without those that follow from the others."""
    found = {field.name: getattr(method, field.name) for field in fields(method)}
    options: dict[str, Any] = json.loads(json.dumps(found))
    for option in tuple(options):
        fewer = {other: value for other, value in options.items() if other != option}
        if _builds(name, fewer, method):
            options = fewer
    return options


def _builds(name: str, options: Mapping[str, Any], method: Compressor) -> bool:
    """Return whether a name and options build a method equal to `method`."""
    try:
        return build_compressor(name, **options) == method
    except (ValueError, TypeError):  # a required option is left out
        return False
