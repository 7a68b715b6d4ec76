"""Training: a generator of steps. Progress, logs, previews and cancelling are the caller's loop."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from itertools import count
from typing import Any, cast

import torch
from torch import Tensor, nn

from sfumato.data.dataset import Batch
from sfumato.errors import SettingsError
from sfumato.model import Model
from sfumato.training import optimisers
from sfumato.training.average import Ema, FlatWeights
from sfumato.training.companion import Companion, companions_in
from sfumato.training.crew import ALONE, Crew, cut
from sfumato.training.device import choose_device
from sfumato.training.errors import TrainingError
from sfumato.training.judge import Judge
from sfumato.training.lesson import Lesson
from sfumato.training.levels import Where
from sfumato.training.looking import Looking, Sight
from sfumato.training.objectives import Objective
from sfumato.training.saving import Saving
from sfumato.training.settings import Habits, TrainSettings
from sfumato.training.state import Counters, State
from sfumato.training.step import Stream, TrainStep, closable
from sfumato.training.telling import Telling
from sfumato.training.validation import HeldOut
from sfumato.training.vault import Memory, Vault

_RECOVERED = 100
"""Good steps after a roll-back until another one is allowed."""


class Training:
    """A run that is going on: its model, its state and where it is kept. Iterate over `steps()`.

    The gradient of a step is a sum over the samples of its batch divided by the batch's size, whatever the
    number of parts and processes. `telling` is what the model is told of its samples. `held` is looked at
    with the averaged weights, and with them the model draws for its `judge`. `stop` is asked between steps
    and between the parts of one: when it says True, the state of the last whole step is saved and the run
    ends. A `vault` that has a state brings it back: the run goes on from there.
    """

    def __init__(
        self,
        model: Model,
        stream: Stream,
        settings: TrainSettings,
        *,
        telling: Telling = Telling(),  # noqa: B008 (frozen)
        held: HeldOut | None = None,
        judge: Judge | None = None,
        vault: Vault | None = None,
        habits: Habits = Habits(),  # noqa: B008 (frozen)
        crew: Crew = ALONE,
        stop: Callable[[], bool] = lambda: False,
        objective: Objective | None = None,
        where: Where | None = None,
        companions: Sequence[Companion] = (),
    ) -> None:
        if settings.batch < crew.size:
            raise SettingsError(f"a batch of {settings.batch} is too small for {crew.size} processes")
        device = choose_device(habits.device, crew.local_rank)
        self.model = model.to(device).train()
        self.stream, self.settings, self.habits, self.crew = stream, settings, habits, crew
        self.stop, self.vault = stop, vault or Memory()
        objective, where = objective or settings.objective(model.schedule), where or settings.where
        objective.check(model)
        drawn = (where,) if isinstance(where, Companion) else ()
        self.companions = (*companions_in(objective), *drawn, *companions)
        self.lesson = Lesson(
            self.model,
            objective,
            where,
            settings.seed,
            float(settings.drop),
            settings.precision,
            device,
            self.companions,
            telling,
        )
        for companion in self.companions:
            companion.begin(self.model, settings.batch, device)
        weights = FlatWeights(self.model)
        optimiser = optimisers.chosen(settings, weights.parameters.values())
        self.state = State(self.model, optimiser, weights, Ema(float(settings.ema)), self.companions)
        self.resumed = self.vault.restore(self.state)
        self.counters.snapshots = min(self.counters.snapshots, settings.snapshots(self.share))
        crew.check_equal(weights.vector)
        self.stopped = False
        self.looking = Looking(self.state, self.lesson, settings, held, judge, crew)
        self.looking.begin(self.resumed)
        self.saving = Saving(self.state, self.vault, settings, habits)
        self._earlier, self._began = self.counters.seconds, time.monotonic()

    @property
    def counters(self) -> Counters:
        return self.state.counters

    @property
    def share(self) -> float:
        """The part of the budget that is used up, 0 .. 1."""
        c = self.counters
        return self.settings.budget.share(c.step, c.position, c.seconds)

    def averaged(self) -> AbstractContextManager[None]:
        """Inside the block the model has its averaged weights: for samples and held-out pictures."""
        return self.state.averaged()

    def steps(self) -> Iterator[TrainStep]:
        """Trains until the budget is used up, `stop` says so or no look has been better for too long.

        Raises TrainingError when losses stay infinite after a roll-back, and whatever the data raises.
        """
        if not self.resumed:
            self.saving.save()
        if self.counters.unseen is not None:
            step = self._complete(TrainStep(**cast(dict[str, Any], self.counters.unseen)))
            if step is not None:
                yield step
        size, first = self.settings.batch, self.counters.position
        rates = deque([(time.monotonic(), first)], maxlen=20)
        cuts = cut(len(self.crew.share(range(size))), self.settings.accumulate)
        shares = (self.crew.share(range(at, at + size)) for at in count(first, size))
        parts = (share[a:b] for share in shares for a, b in cuts)
        with closing(closable(self.stream.each(parts, workers=self.habits.workers))) as batches:
            while not self._over():
                step = self._step(batches, len(cuts))
                if step is None:
                    break
                rates.append((time.monotonic(), step.images))
                passed = max(rates[-1][0] - rates[0][0], 1e-9)
                yield replace(step, images_per_second=(rates[-1][1] - rates[0][1]) / passed)
                if step.last:
                    return
        if not self.saving.current:
            self.saving.save()

    def _over(self) -> bool:
        self.stopped = self.stopped or (self.crew.size == 1 and self.stop())
        return self.stopped or self.looking.tired or self.share >= 1

    def _step(self, batches: Iterator[Batch], parts: int) -> TrainStep | None:
        """One step, None if `stop` came between its parts."""
        began, c = time.monotonic(), self.counters
        lr = self.settings.pace.rate(c.step, self.share)
        gradient = self._gradient(batches, parts)
        if gradient is None:
            return None
        loss, names = gradient
        grads = [p.grad for p in self.state.weights.parameters.values() if p.grad is not None]
        loss, c.seconds = self._agree(grads, loss)
        norm = float(nn.utils.get_total_norm(grads))
        c.position += self.settings.batch
        fine = math.isfinite(loss) and math.isfinite(norm)
        for companion in self.companions:
            _ = companion.learn() if fine else companion.forget()
        notices = self._learn(grads, norm, lr) if fine else self._pass_over(names)
        self.state.optimiser.zero_grad(set_to_none=True)
        c = self.counters
        took = time.monotonic() - began
        step = TrainStep(c.step, c.position, loss, norm, lr, took, self.share, not fine, notices=notices)
        return self._complete(step)

    def _gradient(self, batches: Iterator[Batch], parts: int) -> tuple[float, tuple[str, ...]] | None:
        """Adds up the gradients of this process's share; its loss and the names of its pictures."""
        total = 0.0
        names: tuple[str, ...] = ()
        for part in range(parts):
            if part and self.crew.size == 1 and self.stop():
                self.stopped = True
                self.state.optimiser.zero_grad(set_to_none=True)
                for companion in self.companions:
                    companion.forget()
                return None
            batch = next(batches)
            first = self.counters.position
            marks = self.lesson.marks(batch.images, self.lesson.told(batch), batch.positions, first)
            loss = marks.losses.sum() / self.settings.batch
            (loss if marks.beside is None else loss + marks.beside / self.settings.batch).backward()
            total += float(loss.detach())
            names += batch.names
        return total, names

    def _agree(self, grads: Sequence[Tensor], loss: float) -> tuple[float, float]:
        """Sums gradients and losses over the crew; the loss and the leader's clock, so that all go by one
        clock."""
        seconds = self._earlier + time.monotonic() - self._began
        if self.crew.size == 1:
            return loss, seconds
        self.crew.sum(grads)
        for companion in self.companions:
            self.crew.sum(companion.shared())
        mine = [loss, seconds if self.crew.leads else 0.0, float(self.stop())]
        told = torch.tensor(mine, dtype=torch.float64).to(self.lesson.device)
        self.crew.sum([told])
        self.stopped = self.stopped or float(told[2]) > 0
        return float(told[0]), float(told[1])

    def _learn(self, grads: list[Tensor], norm: float, lr: float) -> tuple[str, ...]:
        clip = float(self.settings.clip)
        if clip and norm > clip:
            torch._foreach_mul_(grads, clip / norm)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        optimisers.set_rate(self.state.optimiser, lr)
        self.state.optimiser.step()
        self.counters.step += 1
        self.counters.in_a_row = 0
        self.state.follow()
        return ()

    def _pass_over(self, names: Sequence[str]) -> tuple[str, ...]:
        """Leaves a step out whose numbers are not finite; after several in a row, goes back to the last good
        state.

        The stream goes on: the same samples are not asked again.
        """
        c = self.counters
        c.skipped += 1
        c.in_a_row += 1
        listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        notice = f"step {c.step + 1} was left out, its loss or gradient is not finite; its pictures: {listed}"
        if c.in_a_row < self.settings.tolerance:
            return (notice,)
        if c.rolled_to >= 0 and c.step < c.rolled_to + _RECOVERED:
            raise TrainingError(
                f"the loss is not finite for {c.in_a_row} steps in a row, again after a return to step "
                f"{c.rolled_to}: lower --lr, use --precision fp32, or look at these pictures: {listed}"
            )
        self.vault.restore(self.state)
        back = self.counters
        back.position, back.skipped, back.seconds = c.position, c.skipped, c.seconds
        back.in_a_row, back.rolled_to = 0, back.step
        return (
            notice,
            f"{self.settings.tolerance} such steps in a row: back to the state of step {back.step}",
        )

    def _complete(self, step: TrainStep) -> TrainStep | None:
        """The step with what was seen after it, and saved where it is time for that. None if `stop` came
        before all was seen: the state then says so, and a run that goes on completes the step first."""
        c = self.counters
        sight = Sight() if step.skipped else self.looking.after(self.share >= 1 and not self.stopped)
        if sight is None:
            c.unseen, self.stopped = step.numbers(), True
            return None
        c.unseen = None
        last = self._over()
        saved, more = self.saving.after(step.skipped, self.share, last, sight.best)
        notices = (*step.notices, *sight.notices, *more)
        return replace(
            step,
            validation=sight.validation,
            figures=sight.figures,
            best=sight.best,
            notices=notices,
            saved=saved,
            last=last,
        )


def fit(
    model: Model,
    stream: Stream,
    settings: TrainSettings,
    *,
    telling: Telling = Telling(),  # noqa: B008 (frozen)
    held: HeldOut | None = None,
    judge: Judge | None = None,
    vault: Vault | None = None,
    habits: Habits = Habits(),  # noqa: B008 (frozen)
    crew: Crew = ALONE,
    stop: Callable[[], bool] = lambda: False,
    objective: Objective | None = None,
    where: Where | None = None,
    companions: Sequence[Companion] = (),
) -> Iterator[TrainStep]:
    """Trains `model` in place: `for step in fit(model, batches, TrainSettings(steps=1000)):
    print(step.loss)`.

    As `Training(...).steps()`; afterwards the model has its averaged weights.
    """
    training = Training(
        model,
        stream,
        settings,
        telling=telling,
        held=held,
        judge=judge,
        vault=vault,
        habits=habits,
        crew=crew,
        stop=stop,
        objective=objective,
        where=where,
        companions=companions,
    )
    yield from training.steps()
    training.state.weights.vector.copy_(training.state.average)
    model.eval()
