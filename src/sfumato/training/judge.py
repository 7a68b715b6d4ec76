"""What training asks of somebody who judges the model by its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable


@runtime_checkable
class Judge(Protocol):
    """Figures of the pictures that the model draws as it is now, such as KID or recall (`evaluation.during`).

    It draws by keys of its own, so a run with a judge takes the same steps as one without. With several
    processes each has a judge and all look together.
    """

    @property
    def terms(self) -> str:
        """All that its figures depend on beside the model, in words: figures of other terms are not compared
        with these."""
        ...

    @property
    def rising(self) -> Mapping[str, bool]:
        """Its figures by name, and of each whether more is better."""
        ...

    def look(self) -> Mapping[str, float] | None:
        """The figures by name; None where the run was asked to stop before they were found."""
        ...
