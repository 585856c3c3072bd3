"""Ask a checkpoint about the clips of a Video-MME-like set, all questions about a clip in one pass.

The answers are those that lmms-eval gets by generating one question at a time: files are read, resized and encoded by
the same code, and packing changes no question's answer. It is only faster.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pyarrow import parquet
from torch import Tensor

from llava.mm_utils import tokenizer_image_token
from llava.model.builder import load_pretrained_model
from llava.video import read_video
from stgridpool import Compressor

from . import attention
from .checkpoint import prompt
from .packing import Frame, run_packed, split_prompts
from .questions import CLOSING, INSTRUCTION, LETTERS


@dataclass(frozen=True)
class Asked:
    """A video of the set and its questions.

    Attributes:
        path: The file.
        rows: Rows of the set.
    """

    path: Path
    rows: tuple[dict[str, Any], ...]

    @property
    def answers(self) -> str:
        """The right letters."""
        return "".join(row["answer"] for row in self.rows)

    @property
    def prompts(self) -> list[str]:
        """The whole prompts, as lmms-eval's Video-MME task and the model's template make them."""
        texts = ["\n".join([INSTRUCTION, row["question"], *row["options"], "", CLOSING]) for row in self.rows]
        return [prompt(text) for text in texts]


def read_set(folder: Path, limit: int | None = None) -> list[Asked]:
    """Read the videos in the folder of a Video-MME-like set, or only the first `limit`."""
    rows = parquet.read_table(folder / "test-00000-of-00001.parquet").to_pylist()
    names = list(dict.fromkeys(row["videoID"] for row in rows))[:limit]
    by_name = {name: tuple(row for row in rows if row["videoID"] == name) for name in names}
    return [Asked(folder / "data" / f"{name}.mp4", by_name[name]) for name in names]


class Watcher:
    """A checkpoint that answers about videos.

    Args:
        folder: Of the checkpoint.
        device: Where it runs.

    Attributes:
        own_pooling: The pooling that the checkpoint asks for.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        attention.register()
        self.tokenizer, self.model, self.processor, _ = load_pretrained_model(
            str(folder), None, None, device_map=device, torch_dtype="float32", attn_implementation="eager"
        )
        self.model.eval()
        self.model.config._attn_implementation = attention.NAME
        self.own_pooling: Compressor = self.model.compressor
        self._pixels: dict[tuple[Path, int], Tensor] = {}

    def pixels(self, path: Path, max_frames: int) -> Tensor:
        """Frames (T, 3, S, S) of a video file, one per second or `max_frames` spread evenly; remembered."""
        key = (path, max_frames)
        if key not in self._pixels:
            frames = read_video(path, max_frames).frames
            self._pixels[key] = self.processor.preprocess(frames, return_tensors="pt")["pixel_values"]
        return self._pixels[key]

    @torch.inference_mode()
    def encode(self, pixels: Tensor, compressor: Compressor) -> Tensor:
        """Encode and compress a video into the tokens (V, D) that the language model reads."""
        self.model.compressor = compressor
        return self.model.encode_video(pixels.to(self.model.device)).embeds

    @torch.inference_mode()
    def answer(self, prompts: list[str], video: Tensor | None) -> str:
        """One letter for each prompt; "?" where the model says no letter, or goes on after it.

        Args:
            prompts: About one video.
            video: (V, D), or None to show nothing.
        """
        ids = [tokenizer_image_token(text, self.tokenizer, return_tensors="pt") for text in prompts]
        before, shared, tails = split_prompts(ids)
        said = self._say(before, shared, tails, video)
        stops = self._say(before, shared, [torch.cat(pair) for pair in zip(tails, said.split(1), strict=True)], video)
        end = self.tokenizer.convert_tokens_to_ids("<|im_end|>")
        letters = self.tokenizer.convert_ids_to_tokens(said.tolist())
        return "".join(
            letter if letter in LETTERS and stop == end else "?" for letter, stop in zip(letters, stops, strict=True)
        )

    def _say(self, before: Tensor, shared: Tensor, tails: list[Tensor], video: Tensor | None) -> Tensor:
        """(n,) the next token of each prompt."""
        frame = Frame(before, shared, tuple(len(tail) for tail in tails))
        shown = torch.empty(0, self.model.config.hidden_size) if video is None else video
        hidden, _ = run_packed(self.model, frame, torch.cat(tails)[None], shown[None].to(self.model.device))
        ends = torch.tensor(frame.lengths).cumsum(0) - 1
        return self.model.lm_head(hidden[0, ends.to(hidden.device)]).argmax(dim=-1).cpu()
