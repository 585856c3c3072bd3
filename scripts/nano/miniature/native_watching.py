"""The same as `watching`, for the miniature in transformers' native format: one line more, and the stock processor.

Frames go through the checkpoint's own processor, and the model's own `generate` answers inside `stgridpool.compress`.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import BatchFeature, LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor

from llava.video import read_video
from stgridpool import Compressor, build_compressor, compress
from stgridpool.adapters import compress_inputs

from .questions import LETTERS


@dataclass(frozen=True)
class Shown:
    """A video that is shown, and how it is compressed.

    Attributes:
        frames: (T, h, w, 3) uint8.
        compressor: The method.
        num_tokens: Visual tokens and newlines that reach the language model.
    """

    frames: Tensor
    compressor: Compressor
    num_tokens: int

    def __len__(self) -> int:
        return self.num_tokens


class NativeWatcher:
    """A native checkpoint that answers about videos; used like `Watcher`.

    Args:
        folder: Of the checkpoint, as scripts/convert_checkpoint.py writes it.
        device: Where it runs.

    Attributes:
        own_pooling: The pooling of the native class.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.processor = LlavaOnevisionProcessor.from_pretrained(folder)
        self.model = (
            LlavaOnevisionForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).to(device).eval()
        )
        self.own_pooling: Compressor = build_compressor("bilinear", stride=2)
        self._frames: dict[tuple[Path, int], Tensor] = {}

    def pixels(self, path: Path, max_frames: int) -> Tensor:
        """Frames (T, h, w, 3) of a video file, one per second or `max_frames` spread evenly; remembered."""
        key = (path, max_frames)
        if key not in self._frames:
            self._frames[key] = torch.from_numpy(read_video(path, max_frames).frames)
        return self._frames[key]

    @torch.inference_mode()
    def encode(self, frames: Tensor, compressor: Compressor) -> Shown:
        """Count the tokens of a video; it is encoded again for the answers, as `generate` does."""
        inputs = self._inputs([self.processor.video_token], frames)
        prompt = compress_inputs(self.model, inputs, compressor)
        return Shown(frames, compressor, prompt.inputs["input_ids"].shape[1])

    @torch.inference_mode()
    def answer(self, prompts: list[str], video: Shown | None) -> str:
        """One letter for each prompt; "?" where the model says no letter, or goes on after it.

        Args:
            prompts: About one video, with LLaVA-NeXT's placeholder.
            video: The video, or None to show nothing.
        """
        place = "" if video is None else self.processor.video_token
        inputs = self._inputs([text.replace("<image>", place) for text in prompts], video and video.frames)
        length = inputs["input_ids"].shape[1]
        with compress(self.model, None if video is None else video.compressor):
            output = self.model.generate(**inputs, max_new_tokens=2, do_sample=False)
        end = self.processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
        said = [self.processor.tokenizer.convert_ids_to_tokens(row) for row in output[:, length:].tolist()]
        stops = output[:, length + 1 :].tolist()
        return "".join(
            row[0] if row[0] in LETTERS and stop == [end] else "?" for row, stop in zip(said, stops, strict=True)
        )

    def _inputs(self, texts: list[str], frames: Tensor | None) -> BatchFeature:
        videos = {} if frames is None else {"videos": [frames.numpy()] * len(texts)}
        inputs = self.processor(text=texts, **videos, padding=True, padding_side="left", return_tensors="pt")
        return inputs.to(self.model.device)
