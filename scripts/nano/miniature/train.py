"""Train the miniature Video LLM from nothing.

Writes OUTPUT/checkpoint, in the layout of a released LLaVA-Video checkpoint, and OUTPUT/state.pt, from which an
interrupted training resumes where it was when the same command is given again. The clips are drawn while it trains.
On the CPU it works in two processes of one thread each, which is faster than two threads; on a GPU in one.
"""

import argparse
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, distributed
from tqdm import tqdm

from lmms_eval_stgridpool.kept.paths import own_folder, path_argument

from . import attention
from .checkpoint import TILE, new_model, read_tokenizer, save_weights, write_description
from .degrading import degrade
from .drawing import draw_clips
from .layouts import draw_layout, encode_clips
from .losses import PATCH_LABELS, Helpers, answer_loss, frame_labels, labels_loss, patch_labels
from .packing import make_form, pack
from .questions import INSTRUCTION
from .schedule import LONG_SECONDS, STAGES, WARM_UP, Stage
from .world import Clips, plan_clips

SAVE_EVERY = 100  # steps


@dataclass(frozen=True)
class Settings:
    """Settings of a training, the same in all processes."""

    output: Path
    device: str
    processes: int
    seed: int
    stages: tuple[Stage, ...]


class Trainer:
    """One process of the training."""

    def __init__(self, settings: Settings, rank: int) -> None:
        attention.register()
        self.settings, self.rank = settings, rank
        folder = settings.output / "checkpoint"
        self.tokenizer = read_tokenizer(folder)
        self.model = new_model(folder, settings.seed).to(settings.device)
        self.model.config._attn_implementation = attention.NAME  # of the language model; the tower has its own
        torch.manual_seed(settings.seed)  # the helpers' weights
        config = self.model.config
        self.helpers = Helpers(config.mm_hidden_size, config.hidden_size).to(settings.device)
        self.forms = [make_form(self.tokenizer, instruction) for instruction in (INSTRUCTION, "")]
        tower = list(self.model.get_vision_tower().parameters()) + list(self.helpers.patch.parameters())
        in_tower = {id(parameter) for parameter in tower}
        both = [*self.model.parameters(), *self.helpers.parameters()]
        others = [parameter for parameter in both if id(parameter) not in in_tower]
        self.optimizer = torch.optim.AdamW(
            [{"params": others}, {"params": tower}], betas=(0.9, 0.98), weight_decay=0.01
        )
        self.scores: dict[str, float] = {}

    def train(self) -> None:
        """Run all stages, starting from the saved state."""
        first, done = self._load()
        for number, stage in enumerate(self.settings.stages[first:], start=first):
            steps = range(done, stage.steps)
            bar = tqdm(steps, initial=done, total=stage.steps, desc=stage.name, disable=self.rank > 0, mininterval=5)
            for step in bar:
                self._step(number, stage, step)
                if step % 20 == 0:
                    bar.set_postfix_str(self._shown(), refresh=False)
                if (step + 1) % SAVE_EVERY == 0 or step + 1 == stage.steps:
                    self._save(number, step + 1)
            done = 0
        if self.rank == 0:
            save_weights(self.model, self.settings.output / "checkpoint")

    def _step(self, number: int, stage: Stage, step: int) -> None:
        place = (self.settings.seed * 100 + number) * 1_000_000 + step
        common = torch.Generator().manual_seed(place * 100)  # drawn alike in all processes, so that none waits
        own = torch.Generator().manual_seed(place * 100 + 1 + self.rank)
        is_long = float(torch.rand((), generator=common)) < stage.long_share
        shortest, longest = LONG_SECONDS if is_long else stage.seconds
        seconds = int(torch.randint(shortest, longest + 1, (), generator=common))
        num_clips = stage.clips // self.settings.processes // (2 if is_long else 1)
        clips = plan_clips(num_clips, seconds, own)
        pixels = degrade(draw_clips(clips, TILE, device=self.settings.device), own) / 127.5 - 1
        for group, rate in zip(self.optimizer.param_groups, stage.rates(step), strict=True):
            group["lr"] = rate * min(1.0, (step + 1) / WARM_UP)
        scores: dict[str, Tensor] = {}
        with torch.autocast(torch.device(self.settings.device).type, torch.bfloat16):
            loss = self._loss(stage, clips, pixels, common, own, scores)
        self.optimizer.zero_grad()
        loss.backward()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        self._share_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step()
        for name, score in scores.items():
            self.scores[name] = 0.98 * self.scores.get(name, float(score)) + 0.02 * float(score)

    def _loss(
        self,
        stage: Stage,
        clips: Clips,
        pixels: Tensor,
        common: torch.Generator,
        own: torch.Generator,
        scores: dict[str, Tensor],
    ) -> Tensor:
        if stage.name == "tower":
            features = self.model.get_vision_tower()(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
            return labels_loss(self.helpers.patch(features), patch_labels(clips), PATCH_LABELS, scores)
        seen = encode_clips(self.model, pixels, draw_layout(clips.seconds, stage.longest_whole, common), common)
        form = self.forms[int(torch.rand((), generator=common) < 0.2)]
        questions = pack(form, clips, self.tokenizer, own)
        labels = frame_labels(clips, seen.frames)
        loss = answer_loss(self.model, self.helpers, form, questions, seen, labels, scores)
        if stage.patch_weight:
            named = self.helpers.projected(seen.projected)
            patches: dict[str, Tensor] = {}
            loss = loss + stage.patch_weight * labels_loss(named, patch_labels(clips), PATCH_LABELS, patches)
            scores |= {f"patch {name}": score for name, score in patches.items()}
        return loss

    def _share_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes."""
        if self.settings.processes == 1:
            return
        flat = torch.cat([parameter.grad.flatten() for parameter in parameters])
        distributed.all_reduce(flat)
        for parameter, mean in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad.copy_((mean / self.settings.processes).view_as(parameter))

    def _shown(self) -> str:
        """Accuracies in percent, averaged over about the last 50 steps: of letters, else of labels."""
        letters = {name.split()[1]: score for name, score in self.scores.items() if name.startswith("letter")}
        return " ".join(f"{name} {100 * score:.0f}" for name, score in (letters or self.scores).items())

    def _save(self, stage: int, step: int) -> None:
        if self.rank > 0:
            return
        state = {"stage": stage, "step": step, "scores": self.scores}
        state |= {name: getattr(self, name).state_dict() for name in ("model", "helpers", "optimizer")}
        path = self.settings.output / "state.pt"
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)  # so that there is a whole state at any time

    def _load(self) -> tuple[int, int]:
        """Stage and step to go on with."""
        path = self.settings.output / "state.pt"
        if not path.exists():
            return 0, 0
        state = torch.load(path, map_location=self.settings.device, weights_only=True)
        for name in ("model", "helpers", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.scores = state["scores"]
        return state["stage"], state["step"]


def _work(rank: int, settings: Settings, meeting_file: str) -> None:
    torch.set_num_threads(1)
    if settings.processes > 1:
        distributed.init_process_group(
            "gloo", init_method=f"file://{meeting_file}", rank=rank, world_size=settings.processes
        )
    Trainer(settings, rank).train()
    if settings.processes > 1:
        distributed.destroy_process_group()


def train(settings: Settings) -> None:
    """Train in the number of processes that the settings say, in a folder that holds nothing else."""
    own_folder("--output", settings.output)
    write_description(settings.output / "checkpoint")
    with tempfile.TemporaryDirectory() as folder:
        work: Callable[..., None] = _work
        arguments = (settings, str(Path(folder) / "meeting"))
        if settings.processes == 1:
            work(0, *arguments)
        else:
            torch.multiprocessing.spawn(work, arguments, nprocs=settings.processes)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=path_argument, default=Path("nano_training"), help="default: nano_training")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: a GPU if any"
    )
    parser.add_argument("--processes", type=int, help="default: 2 on the CPU, 1 on a GPU")
    parser.add_argument("--seed", type=int, default=0, help="of weights and clips (default 0)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="shorten all stages to this fraction, to try things out"
    )
    arguments = parser.parse_args()
    processes = arguments.processes or (2 if arguments.device == "cpu" else 1)
    stages = tuple(replace(stage, steps=math.ceil(stage.steps * arguments.scale)) for stage in STAGES)
    train(Settings(arguments.output, arguments.device, processes, arguments.seed, stages))
