"""Detection of NaN and infinity in the output of a model, without waiting for the device.

float16 overflows above 65504, and a damaged weight spoils everything after it. Neither raises an error: the argmax of
NaN scores is the first token of the vocabulary, which decodes to an answer like any other. So the output of each stage
is reduced to one boolean on its device, and the caller that waits for the answer copies the booleans together with it
(`fetch`).
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
    """NaN or infinity in the output of a stage of the model, which makes the answer meaningless.

    Args:
        stage: The first stage whose output is not finite, such as "projector".
        dtype: Dtype of its output.
    """

    def __init__(self, stage: str, dtype: torch.dtype) -> None:
        name = str(dtype).removeprefix("torch.")
        repair = "use torch_dtype=bfloat16 or float32; if that does not help, " if dtype == torch.float16 else ""
        super().__init__(f"NaN or infinity in the {stage} with torch_dtype={name}: {repair}the weights are damaged")
        self.stage, self.dtype = stage, dtype


def all_finite(values: Tensor) -> Tensor:
    """Tell whether no value is NaN or infinite: () bool on the device of `values`, which may have any shape.

    One pass finds both extremes without temporary tensors; a NaN anywhere makes both NaN.
    """
    if not values.numel() or not values.is_floating_point():
        return torch.ones((), dtype=torch.bool, device=values.device)
    return torch.stack(torch.aminmax(values)).isfinite().all()


@dataclass(frozen=True, eq=False)
class StageCheck:
    """The result of checking the output of a stage.

    Attributes:
        stage: Name of the stage in error messages.
        dtype: Dtype of its output.
        is_finite: () bool, on the device of its output.
    """

    stage: str
    dtype: torch.dtype
    is_finite: Tensor

    @classmethod
    def of(cls, stage: str, values: Tensor) -> StageCheck:
        """Check the output of a stage."""
        return cls(stage, values.dtype, all_finite(values))


def fetch(values: Tensor, *others: Tensor) -> list[Tensor]:
    """Copy tensors to the host in one transfer, so that we wait for the device only once.

    Args:
        values: Tensor of any shape.
        *others: Tensors of any shapes, on any devices; they are converted to the dtype of `values`.
    """
    tensors = [values, *(other.to(values) for other in others)]
    parts = torch.cat([tensor.flatten() for tensor in tensors]).cpu().split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def flags_of(checks: Sequence[StageCheck], device: torch.device) -> Tensor:
    """Return the results of checks (n,) bool on `device`, in the order of `checks`."""
    flags = [check.is_finite.to(device) for check in checks]
    return torch.stack(flags) if flags else torch.ones(0, dtype=torch.bool, device=device)


def first_failure(checks: Sequence[StageCheck], flags: Tensor) -> NonFiniteError | None:
    """Return the error of the first check that failed; None if all passed.

    Args:
        checks: Checks in the order of the stages.
        flags: The result of `flags_of`, on the host.
    """
    for check, is_finite in zip(checks, flags.tolist(), strict=True):
        if not is_finite:
            return NonFiniteError(check.stage, check.dtype)
    return None


class LogitsWatch:
    """A watch over the logits from which one generation chooses tokens, before any processor masks them.

    A row whose logits are not finite is ended: its logits are replaced by some that choose the end token. So a sampler
    gets valid probabilities (invalid ones would crash the whole process on a GPU), and no time is spent on an answer
    that is lost.

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
        """Return whether the logits of each step and row were finite: (steps, rows) bool, on their device."""
        return torch.stack(self._steps)

    @property
    def error(self) -> NonFiniteError:
        """The error to raise if they were not.

        Raises:
            ValueError: If no logits have been seen.
        """
        if self._ending is None:
            raise ValueError("no logits have been seen; generate inside `attached` first")
        return NonFiniteError(LANGUAGE_MODEL, self._ending.dtype)

    def check(self, checks: Sequence[StageCheck] = ()) -> None:
        """Wait for the device and raise an error if anything was not finite.

        Rows that end before others are padded; the logits at their padding are checked, too.

        Args:
            checks: Checks of the stages before the language model.

        Raises:
            NonFiniteError: If the output of an earlier stage, or logits, were not finite.
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
        """Make logits (V,) that choose the end token, or any token if the model has none."""
        ending = logits.new_zeros(logits.shape[-1])
        ends = self._model.generation_config.eos_token_id
        for end in [] if ends is None else [ends] if isinstance(ends, int) else ends:
            ending[end].fill_(_END_LOGIT)  # `ending[end] = number` copies from the host, and the GPU waits for that
        return ending
