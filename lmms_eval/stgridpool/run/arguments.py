"""The arguments of ``--model_args`` that all models of this plug-in take."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

from llava.video import BACKENDS
from llava.video_process import DEFAULT_MEMORY_GB
from lmms_eval_stgridpool.kept.paths import check_path
from lmms_eval_stgridpool.questions.prompt_style import PROMPT_STYLES
from stgridpool import options
from stgridpool.suggestion import suggestion

if TYPE_CHECKING:
    from stgridpool import Compressor

DAMAGED_VIDEOS = ("answer", "fail")
ATTENTION = ("sdpa", "eager", "flash_attention_2")
SPREADING = ("auto", "balanced", "balanced_low_0", "sequential")
"""Values of `device_map` that spread one model over all visible GPUs."""
MOST_FRAMES = 100_000
WHOLE_NUMBERS = {
    "decode_threads": (1, 256),
    "prefetch": (0, 256),
    "questions_per_batch": (1, 1024),
}
FLAGS = (
    *("share_prefix", "reuse_frames", "deterministic", "triton_kernels"),
    *("answer_without_visuals", "allow_use_cache", "resume_any_version", "features_of_missing_videos"),
)
_DEVICE = re.compile("cpu|cuda(:[0-9]{1,3})?")


@dataclass(frozen=True)
class Arguments:
    """Arguments of a model, checked. lmms-eval parses numbers and booleans; the rest comes as text.

    A model's own class adds the arguments that only this model has, and sets the class attributes.

    Attributes:
        MODEL: The model's name in lmms-eval; class attribute.
        SAMPLINGS: Values of `sampling`; class attribute.
        ABSENT: Arguments of other models, and why this one has none of them; class attribute.
        pretrained: Folder or Hugging Face name of a checkpoint.
        max_frames_num: Maximum number of frames of a video, 1 to 100,000; None for the checkpoint's own maximum.
        fps: Frames sampled per second of video, 0.001 to 1000; None for the rule that `sampling` names.
        sampling: The rule by which frames are sampled, one of `SAMPLINGS`; None for the checkpoint's own.
        damaged_videos: "answer" answers questions about videos with signs of damage, and names the videos in the record
            of the run and below the score; "fail" leaves the questions unanswered. VP8, VP9, AV1 and Motion JPEG rarely
            show damage, HEVC only if frames are missing.
        device: Device of a single process, such as "cuda:0" or "cpu"; None is the first GPU, or the CPU if there is no
            GPU. Several processes get their devices from accelerate.
        device_map: "auto", "balanced", "balanced_low_0" or "sequential" spreads the model over the visible GPUs, for a
            single process only. Otherwise None or a device.
        batch_size: Number of questions that lmms-eval passes as one; must be 1.
        attn_implementation: "sdpa", "eager" or "flash_attention_2".
        torch_dtype: "float16", "bfloat16", "float32", or "auto": float16 on a GPU, float32 on the CPU.
        video_decode_backend: "pyav" or "decord"; both read the same frames.
        decode_threads: Number of threads that decode and preprocess videos, 1 to 256.
        decode_timeout_s: Timeout for reading one video, in seconds, 0.001 to 86,400 (a day); a video that takes longer
            has failed.
        decode_memory_gb: Memory limit for reading one video, in gigabytes (10^9 bytes), 0.1 to 1000; a video that needs
            more has failed.
        barrier_timeout_s: Time after which a rank that reports no finished question, while others wait for it, ends the
            run, in seconds, 1 to 604,800 (a week).
        prefetch: Number of videos that are prefetched, 0 to 256; 0 loads each video when it is needed.
        compressor: Name of the method that compresses a video's tokens, or several names joined by "+", such as one
            before the language model and one inside it.
        compressor_args: Its options, as a JSON object; for several methods, an object for each under its name.
        prompt_style: One of `PROMPT_STYLES` words questions as lmms-eval does for its own model of that name, if a
            task has settings for it; None uses the default wording of the task.
        share_prefix: Whether to prefill a video once for all questions about it. Compressors that look at the question
            switch this off.
        reuse_frames: Whether the vision tower encodes frames that equal an earlier one of their video, pixel by pixel,
            once; the answers are the same up to rounding.
        questions_per_batch: Maximum number of questions about one video that are answered as a batch, 1 to 1024. Each
            needs its own copy of the video's keys and values.
        feature_cache: Folder of a cache for the vision tower's features, for other runs and other compressors.
        feature_cache_gb: Size limit of the cache, in gigabytes (10^9 bytes), 10^-6 to 10^6; the oldest features are
            evicted first.
        features_of_missing_videos: Whether the cache serves a video whose file is gone, with the newest features of its
            path; otherwise its questions stay unanswered.
        deterministic: Whether to use fixed seeds and deterministic kernels only, and to answer questions one by one, so
            that a run can be repeated bit for bit.
        triton_kernels: Whether to pool with Triton kernels on a GPU; off by default, because they have run on one kind
            of card only and save under 1 % of an evaluation.
        max_failed: Largest fraction of the questions that may stay unanswered, 0 to 1. If more or all are unanswered,
            the run has failed and ends with a non-zero status.
        answer_without_visuals: Whether to answer a question if its task shows nothing; otherwise its video counts as
            missing.
        allow_use_cache: Whether lmms-eval's ``--use_cache`` may serve answers, which may come from another checkpoint.
        resume_dir: Folder of the journal, which keeps every answer; a question that it answers is not asked again.
        resume_any_version: Whether to also take answers from the journal that other code, or other versions of torch
            and transformers, have computed.

    Raises:
        ValueError: If an argument has the wrong type or is out of range, or a path is empty.
        TypeError: If a path is a number.
    """

    MODEL: ClassVar[str]
    SAMPLINGS: ClassVar[Sequence[str]]
    ABSENT: ClassVar[Mapping[str, str]]

    pretrained: str
    max_frames_num: int | None = None
    fps: float | None = None
    sampling: str | None = None
    damaged_videos: str = "answer"
    device: str | None = None
    device_map: str | None = None
    batch_size: int | str = 1
    attn_implementation: str = "sdpa"
    torch_dtype: str = "auto"
    video_decode_backend: str = "pyav"
    decode_threads: int = 2
    decode_timeout_s: float = 120
    decode_memory_gb: float = DEFAULT_MEMORY_GB
    barrier_timeout_s: float = 3600
    prefetch: int = 2
    prompt_style: str | None = None
    compressor: str = "st_gridpool"
    compressor_args: str | Mapping[str, Any] = field(default_factory=dict)
    share_prefix: bool = True
    reuse_frames: bool = True
    questions_per_batch: int = 4
    feature_cache: str | None = None
    feature_cache_gb: float = 100
    features_of_missing_videos: bool = False
    deterministic: bool = False
    triton_kernels: bool = False
    max_failed: float = 0.5
    answer_without_visuals: bool = False
    allow_use_cache: bool = False
    resume_dir: str | None = None
    resume_any_version: bool = False

    def __post_init__(self) -> None:
        for name in ("pretrained", "feature_cache", "resume_dir"):
            self._check_path(name)
        options.choice("video_decode_backend", self.video_decode_backend, BACKENDS)
        if self.sampling is not None:
            options.choice("sampling", self.sampling, self.SAMPLINGS)
        options.choice("damaged_videos", self.damaged_videos, DAMAGED_VIDEOS)
        options.choice("torch_dtype", self.torch_dtype, ("auto", "float16", "bfloat16", "float32"))
        options.choice("attn_implementation", self.attn_implementation, ATTENTION)
        if self.prompt_style is not None:
            options.choice("prompt_style", self.prompt_style, PROMPT_STYLES)
        for name, (low, high) in WHOLE_NUMBERS.items():
            options.whole_number(name, getattr(self, name), low, high)
        if self.max_frames_num is not None:
            options.whole_number("max_frames_num", self.max_frames_num, 1, MOST_FRAMES)
        options.number("decode_timeout_s", self.decode_timeout_s, 0.001, 86_400, "seconds")
        options.number("decode_memory_gb", self.decode_memory_gb, 0.1, 1000, "gigabytes")
        options.number("barrier_timeout_s", self.barrier_timeout_s, 1, 604_800, "seconds")
        options.number("feature_cache_gb", self.feature_cache_gb, 1e-6, 1e6, "gigabytes")
        options.number("max_failed", self.max_failed, 0, 1)
        for name in FLAGS:
            options.flag(name, getattr(self, name))
        if self.features_of_missing_videos and self.feature_cache is None:
            raise ValueError("features_of_missing_videos needs the cache that has them: feature_cache=FOLDER")
        if self.fps is not None:
            options.number("fps", self.fps, 0.001, 1000, "frames per second")
        if str(self.batch_size) != "1":
            raise ValueError(f"batch_size must be 1, got {self.batch_size!r}: use questions_per_batch for batches")
        self._check_devices()
        self.build_compressor()

    def _check_path(self, name: str) -> None:
        if name == "pretrained" or getattr(self, name) is not None:
            check_path(name, getattr(self, name))

    def _check_devices(self) -> None:
        if self.device is not None:
            _check_device("device", self.device, ())
        if self.device_map is not None:
            _check_device("device_map", self.device_map, SPREADING)
        is_one_device = self.device_map not in (None, *SPREADING)
        if self.device is not None and is_one_device and self.device != self.device_map:
            raise ValueError(f"device={self.device} contradicts device_map={self.device_map}: leave one of them out")

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        """Create the arguments from values by name.

        Raises:
            ValueError: If a name is unknown (the message suggests the most similar one) or belongs to another model,
                `pretrained` is missing, or a value is out of range.
        """
        known = [argument.name for argument in fields(cls)]
        for name in given:
            if name in cls.ABSENT:
                raise ValueError(f"{cls.MODEL} has no argument {name!r}: {cls.ABSENT[name]}")
            if name not in known:
                raise ValueError(f"{cls.MODEL} has no argument {name!r}{suggestion(name, known)}")
        if "pretrained" not in given:
            raise ValueError(f"{cls.MODEL} needs pretrained=FOLDER_OR_NAME in --model_args")
        return cls(**given)

    def frame_options(self) -> dict[str, Any]:
        """Return the options that decide which frames of a video are sampled, besides `sampling`."""
        return {"max_frames_num": self.max_frames_num, "fps": self.fps}

    def recorded(self) -> dict[str, Any]:
        """Return the arguments that the record of a run shows as they were given."""
        return {
            **self.frame_options(),
            **{name: getattr(self, name) for name in ("sampling", "prompt_style", "video_decode_backend")},
            **{name: getattr(self, name) for name in ("deterministic", "triton_kernels", "resume_any_version")},
            **{name: getattr(self, name) for name in ("reuse_frames", "features_of_missing_videos")},
        }

    def fixed_vision_batch_size(self) -> int | None:
        """Return the number of frames that go through the vision tower at a time; None if nothing fixes it."""
        return None

    def build_compressor(self) -> Compressor:
        """Build the compressor.

        Raises:
            ValueError: If `compressor_args` is not a JSON object, or if the name or an option is not valid.
        """
        from stgridpool import build_compressor  # noqa: PLC0415 - imports torch; the other arguments need none

        given = self.compressor_args
        if isinstance(given, str):
            given = options.json_object("compressor_args", given or "{}")
        if not isinstance(given, Mapping):
            raise ValueError(f'compressor_args must be a JSON object such as {{"preset": "paper"}}, got {given!r}')
        return build_compressor(options.text("compressor", self.compressor), **given)


def _check_device(name: str, value: object, others: Sequence[str]) -> None:
    if not isinstance(value, str) or (value not in others and _DEVICE.fullmatch(value) is None):
        raise ValueError(f"{name} must be {', '.join([*others, 'cpu, cuda or cuda:0, cuda:1, ...'])}, got {value!r}")
