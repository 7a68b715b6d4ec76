"""Grids of samples on the way: RUN/samples."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from sfumato.conditions.schema import Wish
from sfumato.errors import SettingsError
from sfumato.files import write_json
from sfumato.training.drawing import Drawing
from sfumato.training.figures import write_grid

ASKED = "asked.json"
_COLUMNS = 8
_STEPS = 25


@dataclass
class Preview:
    """Draws a grid now and then, so that it costs about a `share` of the time; never for a share of 0."""

    drawing: Drawing
    share: float
    _at: float = field(default_factory=time.monotonic)
    _cost: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise SettingsError(f"--sample-share must be in [0, 1), not {self.share}")

    def due(self, images_per_second: float) -> bool:
        """The first grid's cost is guessed: a picture asked once costs a third of training on it."""
        if not self.share:
            return False
        cost = self._cost or len(self._rows()) * _STEPS / 3 / max(images_per_second, 1e-6)
        return time.monotonic() - self._at > max(10.0, cost / self.share)

    def draw(self, step: int) -> None:
        """Writes the grid of this step; none where the run is asked to stop."""
        began = time.monotonic()
        images = self._samples()
        if images is not None:
            classes = len(self.drawing.run.card.classes or ())
            path = self.drawing.run.path / "samples" / f"step-{step:08d}.png"
            write_grid(path, images, classes if 2 <= classes <= 16 else _COLUMNS)
        self._at = time.monotonic()
        self._cost = self._at - began

    def _rows(self) -> list[Wish]:
        """The classes of a grid, one a picture: 4 rows or more with every class, as long as they are few."""
        classes = len(self.drawing.run.card.classes or ())
        if not classes or self._tells_more:
            return [Wish()] * min(32, len(self.drawing.data.train))
        return [Wish(i % classes) for i in range(classes * max(1, 40 // classes))][:64]

    @property
    def _tells_more(self) -> bool:
        """Whether the model is told more than a class: a grid then shows what it makes of real wishes."""
        card = self.drawing.run.card
        return card.attributes is not None or card.text is not None or card.picture is not None

    def _samples(self) -> Tensor | None:
        drawing, wishes = self.drawing, self._rows()
        shown: Tensor | None = None
        if self._tells_more:
            data, folder = drawing.data, drawing.run.path / "samples"
            rows = [*data.held.tolist(), *data.train.tolist()][: len(wishes)]  # others where few are held out
            told, shown = drawing.known(rows)
            folder.mkdir(exist_ok=True)
            write_json(folder / ASKED, [asdict(wish) for wish in told])
            wishes = list(told)
        made = list(drawing.pictures(drawing.recipe(wishes, steps=_STEPS), shown))
        return torch.cat(made) if sum(len(part) for part in made) == len(wishes) else None
