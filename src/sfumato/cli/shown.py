"""What `sfumato train` shows, and the other places that figures go to."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from sfumato.data.dataset import DataSet
from sfumato.training.interrupt import Interrupt
from sfumato.training.logs import TensorBoard, Tracker, WeightsAndBiases
from sfumato.training.recipes import RunSettings
from sfumato.training.step import TrainStep


def trackers(
    out: Path, tensorboard: bool, wandb: str | None, settings: RunSettings
) -> Callable[[], Sequence[Tracker]]:
    """The trackers that were asked for, made when they are needed."""

    def made() -> list[Tracker]:
        found: list[Tracker] = []
        if tensorboard:
            found.append(TensorBoard(out / "tensorboard"))
        if wandb is not None:
            found.append(WeightsAndBiases(wandb, out, settings.to_json()))
        return found

    return made


class Shown:
    """What the user sees: a line that moves on a terminal, plain lines now and then elsewhere."""

    def __init__(self, out: Path, speaks: bool) -> None:
        self.out, self.speaks = out, speaks
        self.console = Console(highlight=False, soft_wrap=True)
        self.began = time.monotonic()
        self.last: TrainStep | None = None
        self.loss: float | None = None
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._told = time.monotonic() - 60
        self._share = 0.0
        self._best_by = "loss"

    def say(self, text: str) -> None:
        if self.speaks:
            self.console.print(text, markup=False)

    def reading(self, asked: Interrupt) -> Callable[[int, int], None]:
        """Tells how far the pictures are read, and ends it when the process is asked to stop."""
        return self._telling(asked, "reading pictures")

    def judging(self, asked: Interrupt) -> Callable[[int, int], None]:
        """The same of the real pictures that samples will be compared with."""
        return self._telling(asked, "looking at real pictures, once")

    def _telling(self, asked: Interrupt, what: str) -> Callable[[int, int], None]:
        def told(done: int, total: int) -> None:
            if asked():
                raise typer.Exit(asked.exit_code)
            if time.monotonic() - self._told > 5:
                self._told = time.monotonic()
                self.say(f"  {what}: {done} of {total}")

        return told

    @contextmanager
    def naming(self) -> Generator[None, None, None]:
        """Inside the block no log names the pictures that cannot be read: `begin` does, once for all
        processes."""
        log = logging.getLogger("sfumato.data.ingest")
        was, log.disabled = log.disabled, True
        try:
            yield
        finally:
            log.disabled = was

    def begin(self, data: DataSet, settings: RunSettings) -> None:
        self._best_by = settings.train.best_by
        for sentence in (*settings.reasons, *data.notes):
            self.say(f"  {sentence}")
        named = data.bad[:10] if data.reused else data.bad
        for flaw in named:
            self.say(f"  left out: {flaw}")
        if len(data.bad) > len(named):
            self.say(f"  and {len(data.bad) - len(named)} more left out")

    def progress(self) -> AbstractContextManager[object]:
        """The moving line, if there is a terminal."""
        if not (self.speaks and sys.stdout.isatty()):
            return nullcontext()
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), console=self.console)
        self._task = self._bar.add_task("starting", total=1.0)
        return self._bar

    def step(self, step: TrainStep) -> None:
        if self.last is None:
            if step.step > 1:
                self.say(f"  goes on from step {step.step - 1}")
            self._share = step.share
            self.began = time.monotonic()
        self.last = step
        if not step.skipped:
            self.loss = step.loss if self.loss is None else 0.95 * self.loss + 0.05 * step.loss
        if step.figures:
            each = "  ".join(f"{name} {value:.4g}" for name, value in step.figures.items())
            best = "  (the best so far)" if step.best and self._best_by in step.figures else ""
            self.say(f"  step {step.step}  {each}{best}")
        for notice in step.notices:
            self.say(f"  {notice}")
        if self._bar is not None:
            self._bar.update(self._task, completed=step.share, description=self._line(step))
        elif time.monotonic() - self._told > 10 or step.last:
            self._told = time.monotonic()
            self.say(self._line(step))

    def _line(self, step: TrainStep) -> str:
        done = step.share - self._share
        left = (time.monotonic() - self.began) * (1 - step.share) / done if done > 0 else 0.0
        minutes, seconds = divmod(round(left), 60)
        loss = "" if self.loss is None else f"loss {self.loss:.4f}  "
        return (
            f"step {step.step}  {step.share:4.0%}  {loss}{step.images_per_second:.0f} images/s  "
            f"{minutes}:{seconds:02d} left"
        )

    def end(self, code: int) -> None:
        if code:
            self.say(f"stopped by a signal; the state is saved in {self.out / 'checkpoints'}")
            self.say("the same command goes on from there")
            return
        samples = sorted((self.out / "samples").glob("step-*.png"))
        self.say(f"done: the model is {self.out}")
        if samples:
            self.say(f"  samples   {samples[-1]}")
        self.say(f"  loss      {self.out / 'loss.png'}   (figures: {self.out / 'log.jsonl'})")
        self.say("go on with")
        self.say(f"  sfumato sample {self.out} -n 16 --out {self.out / 'pictures.png'}")
        self.say(f"  sfumato sample {self.out} -n 4 --film {self.out / 'film.webp'}")
