"""What a method leaves of a video in a native model of transformers, counted without its weights.

The tokens of such a model depend on the size of the frames, and sometimes on their number, so that a plan is about one
video. The checkpoint's own processor says how many they are, from frames without pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llava.frame_list import list_frames
from llava.video import read_frame_folder, read_video
from llava.video_clip import VideoClip
from lmms_eval_stgridpool.health.planned import MOST_FRAMES, TEXT_TOKENS, Outline, Planned, fit, plan_video
from lmms_eval_stgridpool.run.checkpoint_checks import read_checkpoint_settings
from lmms_eval_stgridpool.run.native_arguments import NativeArguments
from lmms_eval_stgridpool.videos.stock_frames import frame_rule
from stgridpool import Compressor
from stgridpool.adapters.adapter import VIDEO, Adapter
from stgridpool.adapters.families import adapter_for
from stgridpool.adapters.frame_rules import Source, spread
from stgridpool.adapters.method import Method
from stgridpool.adapters.native_checks import BUILDING_ERRORS, cannot_build, check_stored, outline, read_config
from stgridpool.adapters.native_processor import load_processor
from stgridpool.adapters.native_recipe import NativeRecipe
from stgridpool.budget import BudgetError
from stgridpool.cost import DecoderSize
from stgridpool.equal_budget import Reference


@dataclass(frozen=True, eq=False)
class NativePlanner:
    """Counts the tokens of one video for one checkpoint.

    Attributes:
        model: The model, with its weights on the device "meta".
        adapter: The adapter for it.
        recipe: Its processor, and the rule by which frames are chosen.
        video: The video.
        source: The number of its frames and their rate.
        frame_size: Height and width of its frames, in pixels.
        chosen: The frames that were chosen, by their number.
    """

    model: Any
    adapter: Adapter
    recipe: NativeRecipe
    video: Path
    source: Source
    frame_size: tuple[int, int]
    chosen: Mapping[int, Sequence[int]]
    _whole: dict[int, Outline] = field(default_factory=dict)

    @classmethod
    def of(cls, video: Path, arguments: NativeArguments, most_frames: Sequence[int | None]) -> "NativePlanner":
        """Read a checkpoint's configuration and processor, and the number and the size of a video's frames.

        Args:
            video: A file, or a folder of pictures.
            arguments: The arguments of the model.
            most_frames: Largest numbers of frames to plan; None for the checkpoint's own.

        Raises:
            ValueError: If the checkpoint cannot be read, or its family is not supported.
            VideoReadError: If the video cannot be read.
        """
        listed = list_frames(video)
        height, width = _read(video, [0]).frames.shape[1:3]
        source = Source(listed.num_frames, listed.frame_rate)
        folder, settings = read_checkpoint_settings(arguments.pretrained)
        if folder is not None:
            check_stored(folder)
        place = folder or arguments.pretrained
        model = _model_without_weights(place, settings)
        processor = load_processor(place, model.config)
        adapter, rule = adapter_for(model), frame_rule(model, processor, arguments)
        recipe = NativeRecipe(processor, rule, torch.float32, adapter.lists_per_prompt)
        rules = (rule if most is None else replace(rule, max_frames_num=most) for most in most_frames)
        chosen = {len(indices): indices for indices in (one.choose(source) for one in rules)}
        return cls(model, adapter, recipe, video, source, (height, width), chosen)

    @property
    def counts(self) -> list[int]:
        """The numbers of frames that were chosen."""
        return list(self.chosen)

    @property
    def size(self) -> DecoderSize:
        """Size of the language model."""
        return DecoderSize.of(self.model.config.get_text_config())

    @property
    def longest(self) -> int | None:
        """Length of the prompts for which the model is made, in tokens; None if its configuration does not say."""
        longest: int | None = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return longest

    @property
    def most_sampled(self) -> int:
        """Maximum number of frames that the checkpoint samples, however long a video is."""
        return len(self.recipe.rule.choose(Source(MOST_FRAMES, self.source.frame_rate)))

    def outline(self, frames: int) -> Outline:
        """Return the sizes of the video with a number of frames, time stamps included.

        Raises:
            VideoReadError: If the tokens depend on pixels that cannot be read.
        """
        made, record = self._sizes(frames)
        total = self.adapter.kept_tokens(made)
        if total is not None and frames in self.chosen:
            clip = _read(self.video, self.chosen[frames])
            total = self.adapter.kept_tokens(self.recipe.inputs(clip.frames, clip.indices, self.source))
        return self._outline(frames, made, total, TEXT_TOKENS + self._text_between(record))

    def plan(self, compressor: Compressor, frames: int) -> Planned:
        """Count what a method leaves of `frames` frames.

        Raises:
            ValueError: If the family cannot run the method, it is not deep enough for it, or there are too few tokens
                for its options.
        """
        return self._plan(compressor, self.outline(frames))

    def fit(self, compressor: Compressor, most_tokens: int) -> int:
        """Return the largest number of frames of which at most `most_tokens` enter the language model, with newlines.

        Frames count as if all their tokens were kept, and as if the video were long enough.

        Raises:
            ValueError: See `planned.fit`.
        """

        def plan(frames: int) -> Planned | None:
            if frames not in self._whole:
                made, _ = self._sizes(frames)
                self._whole[frames] = self._outline(frames, made, None, TEXT_TOKENS)
            try:
                return self._plan(compressor, self._whole[frames])
            except BudgetError:
                return None

        return fit(plan, compressor, most_tokens)

    def _plan(self, compressor: Compressor, video: Outline) -> Planned:
        method = Method.of_model(self.adapter, self.model, compressor).compressor or video.reference.own_pooling
        for step in method.steps():
            if video.total is not None and not step.is_inside and step.compressor.needs_maps:
                raise ValueError(
                    f"{method!r} needs whole frames, and the processor keeps only {video.total} tokens of this video"
                )
        return replace(plan_video(method, video, self.size, self.longest), compressor=repr(compressor))

    def _outline(self, frames: int, made: Mapping[str, Any], total: int | None, text_tokens: int) -> Outline:
        lattice_frames, *patches = self.adapter.source_shape(self.model, made)
        rows, columns = patches
        pooling = self.adapter.own_pooling(self.model)
        reference = Reference(pooling, (rows, columns), len(self.model.get_decoder().layers))
        position = self.adapter.newline_position(self.model)
        if position is None:
            position = "no_token" if self.adapter.tail(self.model) is None else "one_token"
        if total == prod((lattice_frames, rows, columns)):
            total = None
        return Outline(frames, reference, lattice_frames, position, total, text_tokens)

    def _sizes(self, frames: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the result of `NativeRecipe.outline` for frames of the video, or of a longer one of its kind."""
        source = replace(self.source, num_frames=max(frames, self.source.num_frames))
        indices = self.chosen.get(frames) or spread(source.num_frames, frames)
        return self.recipe.outline(self.frame_size, indices, source, self.adapter.blank_options)

    def _text_between(self, record: Mapping[str, Tensor]) -> int:
        """Count the tokens of text between the first and the last visual token.

        Raises:
            ValueError: If the processor writes no placeholder that the model knows.
        """
        prompt = self.recipe.prompt(self.recipe.text([{"role": "user", "content": [{"type": "video"}]}]), [record])
        places = self.adapter.slots(self.model, prompt, VIDEO)[0].nonzero().flatten()
        if not len(places):
            raise ValueError(
                "the prompt has no placeholders for the tokens of the video: token ids in the checkpoint's config.json "
                "and in its processor differ"
            )
        return int(places[-1] - places[0]) + 1 - len(places)


def _read(video: Path, indices: Sequence[int]) -> VideoClip:
    read = read_frame_folder if video.is_dir() else read_video
    return read(video, indices=list(indices))


def _model_without_weights(checkpoint: str | Path, settings: Mapping[str, Any]) -> Any:
    """Build the model of a checkpoint with the settings of its config.json, on the device "meta".

    Raises:
        ValueError: If settings allow no model.
    """
    config = read_config(checkpoint, settings)
    try:
        return outline(config)
    except BUILDING_ERRORS as error:
        raise cannot_build(checkpoint, error) from error
