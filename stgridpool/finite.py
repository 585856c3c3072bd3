"""Notice NaN and infinity in what a model computes, without waiting for the device.

float16 overflows above 65504, and a damaged weight spoils everything behind it. Neither raises: the best of scores that
are NaN is the first token of the vocabulary, which decodes to an answer like any other. What a stage of the model gives
is therefore reduced to one truth value on its device. Whoever waits for the result reads these values with it, in the
same copy (`fetch`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

LANGUAGE_MODEL = "language model"
_END_LOGIT = 1e4  # within the range of float16; all other logits are 0


class NonFiniteError(ArithmeticError):
    """NaN or infinity came out of a stage of the model, so that an answer says nothing.

    Args:
        stage: The first stage that gave them, such as "projector".
        dtype: Of what it gave.
    """

    def __init__(self, stage: str, dtype: torch.dtype) -> None:
        name = str(dtype).removeprefix("torch.")
        repair = "use torch_dtype=bfloat16 or float32; if that does not help, " if dtype == torch.float16 else ""
        super().__init__(f"NaN or infinity in the {stage} with torch_dtype={name}: {repair}the weights are damaged")
        self.stage, self.dtype = stage, dtype


def all_finite(values: Tensor) -> Tensor:
    """Whether no value is NaN or infinite: () bool on the device of `values`, which may have any shape.

    The extremes are read in one pass without temporary tensors; a NaN anywhere makes both NaN.
    """
    if not values.numel():
        return torch.ones((), dtype=torch.bool, device=values.device)
    return torch.stack(torch.aminmax(values)).isfinite().all()


@dataclass(frozen=True, eq=False)
class StageCheck:
    """Whether what a stage gave is finite.

    Attributes:
        stage: What it is called in errors.
        dtype: Of what it gave.
        is_finite: () bool, on the device of what it gave.
    """

    stage: str
    dtype: torch.dtype
    is_finite: Tensor

    @classmethod
    def of(cls, stage: str, values: Tensor) -> StageCheck:
        """Check what a stage gave."""
        return cls(stage, values.dtype, all_finite(values))


def fetch(values: Tensor, *others: Tensor) -> list[Tensor]:
    """Tensors on the host, copied together: the device is waited for once, as for the first alone.

    Args:
        values: Of any shape.
        *others: Of any shapes, on any devices; they get the dtype of `values`.
    """
    tensors = [values, *(other.to(values) for other in others)]
    parts = torch.cat([tensor.flatten() for tensor in tensors]).cpu().split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def flags_of(checks: Sequence[StageCheck], device: torch.device) -> Tensor:
    """The results of checks (n,) bool, on `device`; their order is that of the stages."""
    flags = [check.is_finite.to(device) for check in checks]
    return torch.stack(flags) if flags else torch.ones(0, dtype=torch.bool, device=device)


def first_failure(checks: Sequence[StageCheck], flags: Tensor) -> NonFiniteError | None:
    """The error of the first check that failed, if one did.

    Args:
        checks: In the order of the stages.
        flags: What `flags_of` gave, on the host.
    """
    for check, is_finite in zip(checks, flags.tolist(), strict=True):
        if not is_finite:
            return NonFiniteError(check.stage, check.dtype)
    return None


class LogitsWatch:
    """Watches the logits that tokens of one generation are chosen from, before any processor masks them.

    A row whose logits are not finite is made to end: it gets logits that choose the end token, so that a sampler finds
    probabilities (on a GPU it would otherwise take the whole process down) and nothing is computed for an answer that
    is lost.

    Args:
        model: A causal language model of transformers.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._steps: list[Tensor] = []
        self._ending: Tensor | None = None

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Watch while the block runs."""
        handle = self._model.register_forward_hook(self._note)
        try:
            yield
        finally:
            handle.remove()

    def flags(self) -> Tensor:
        """Whether the logits of each step and row were finite: (steps, rows) bool, on their device."""
        return torch.stack(self._steps)

    @property
    def error(self) -> NonFiniteError:
        """What to raise where they were not."""
        if self._ending is None:
            raise ValueError("no logits have been seen: generate inside `attached` first")
        return NonFiniteError(LANGUAGE_MODEL, self._ending.dtype)

    def check(self, checks: Sequence[StageCheck] = ()) -> None:
        """Wait for the device and raise if anything was not finite.

        Rows that end before others are padded; their padding counts, too.

        Args:
            checks: Of the stages in front of the language model.

        Raises:
            NonFiniteError: If logits or a stage in front were not finite.
        """
        logits, stages = fetch(self.flags().all(), flags_of(checks, self._steps[0].device))
        error = first_failure(checks, stages)
        if error is None and not logits:
            error = self.error
        if error is not None:
            raise error

    def _note(self, module: Any, args: tuple[Any, ...], output: Any) -> Any:  # noqa: ARG002
        logits = output.logits  # (rows, positions, V)
        is_finite = logits[:, -1].isfinite().all(dim=-1)  # (rows,)
        self._steps.append(is_finite)
        if self._ending is None:
            self._ending = self._make_ending(logits)
        return replace(output, logits=torch.where(is_finite[:, None, None], logits, self._ending))

    def _make_ending(self, logits: Tensor) -> Tensor:
        """Logits (V,) of the end token; of any token where the model has none."""
        ending = logits.new_zeros(logits.shape[-1])
        ends = self._model.generation_config.eos_token_id
        for end in [] if ends is None else [ends] if isinstance(ends, int) else ends:
            ending[end].fill_(_END_LOGIT)  # `ending[end] = number` would copy it from the host, for which a GPU waits
        return ending
