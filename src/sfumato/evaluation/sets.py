"""Sets of pictures to measure: of a data set, of a run's samples, of a folder; read batch by batch."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sfumato.data import cache as store
from sfumato.data.bundled import open_source
from sfumato.data.dataset import DataSet, to_unit
from sfumato.data.fit import digest
from sfumato.data.ingest import Progress
from sfumato.data.prepare import prepare
from sfumato.data.source import Source
from sfumato.errors import ImageFileError, SettingsError
from sfumato.files.pictures import to_bytes
from sfumato.provenance import origin
from sfumato.runs import Recipe, Run

AT_ONCE = 256
"""How many pictures are in memory while their hashes are taken."""


@dataclass(frozen=True)
class PictureSet:
    """n pictures of one size, kept as whole numbers wherever they lie; only what is asked for is in memory.

    digests: of each picture's values. read: rows -> (B, H, W, C) uint8 or uint16. classes are numbers into
    class_names, -1 where not known; captions one a picture; None where there are none.
    """

    name: str
    digests: tuple[str, ...]
    shape: tuple[int, int, int]
    read: Callable[[np.ndarray], np.ndarray] = field(repr=False, compare=False)
    classes: tuple[int, ...] | None = None
    class_names: tuple[str, ...] = ()
    captions: tuple[str, ...] | None = None

    @property
    def count(self) -> int:
        """n."""
        return len(self.digests)

    @cached_property
    def sha256(self) -> str:
        """Of the pictures' values, whatever their order: two sets of the same pictures have the same."""
        return hashlib.sha256("\n".join(sorted(self.digests)).encode()).hexdigest()

    @cached_property
    def order(self) -> np.ndarray:
        """The rows sorted by content, (n,) int64: the order that does not depend on the set's own."""
        return np.argsort(np.array(self.digests), kind="stable").astype(np.int64)

    def images(self, rows: Sequence[int] | np.ndarray) -> Tensor:
        """These pictures, (B, C, H, W) float32 in [-1, 1]."""
        return to_unit(self.read(np.asarray(rows, dtype=np.int64)))

    def batches(self, size: int, rows: Sequence[int] | np.ndarray | None = None) -> Iterator[Tensor]:
        """All pictures (or these rows), `size` at a time, (B, C, H, W) float32 in [-1, 1]."""
        wanted = np.arange(self.count) if rows is None else np.asarray(rows, dtype=np.int64)
        for start in range(0, len(wanted), size):
            yield self.images(wanted[start : start + size])

    def take(self, rows: Sequence[int] | np.ndarray) -> PictureSet:
        """Some of them, in this order. Raises SettingsError for a row that is not there."""
        index = np.asarray(rows, dtype=np.int64).reshape(-1)
        if len(index) and not (int(index.min()) >= 0 and int(index.max()) < self.count):
            raise SettingsError(f"rows of {self.name} go from 0 to {self.count - 1}")
        kept = index.tolist()
        return replace(
            self,
            digests=tuple(self.digests[row] for row in kept),
            read=partial(_through, self.read, index),
            classes=None if self.classes is None else tuple(self.classes[row] for row in kept),
            captions=None if self.captions is None else tuple(self.captions[row] for row in kept),
        )


def _through(read: Callable[[np.ndarray], np.ndarray], index: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return read(index[rows])


def _of_array(pixels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.asarray(pixels[rows])


def _digests(read: Callable[[np.ndarray], np.ndarray], count: int) -> tuple[str, ...]:
    found: list[str] = []
    for start in range(0, count, AT_ONCE):
        found += [digest(one) for one in read(np.arange(start, min(start + AT_ONCE, count)))]
    return tuple(found)


def of_dataset(data: DataSet, rows: Sequence[int] | np.ndarray, name: str = "") -> PictureSet:
    """These rows of a data set as training sees them, unaugmented; several captions: the first."""
    index = np.asarray(rows, dtype=np.int64).reshape(-1)
    (height, width), stored = data.size, data.pixels.shape
    top, left = (stored[1] - height) // 2, (stored[2] - width) // 2

    def read(wanted: np.ndarray) -> np.ndarray:
        return data.stored(index[wanted])[:, top : top + height, left : left + width]

    classes = data.classes_of(index)
    return PictureSet(
        name=name or data.name,
        digests=_digests(read, len(index)),
        shape=data.shape,
        read=read,
        classes=None if classes is None else tuple(classes.tolist()),
        class_names=data.label_names,
        captions=data.captions_of(index, [0.0] * len(index)),
    )


def of_folder(
    path: str | Path | Source,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> PictureSet:
    """All pictures of a folder, an .npz file or a bundled set, with their classes and captions.

    size: (height, width) or one side to bring them to, as `sfumato train` does; without it they must all be
    of one size, which they keep. cache: where decoded pictures are kept, as for `prepare`. Raises DataError,
    SettingsError.
    """
    source = path if isinstance(path, Source) else open_source(path)
    side = _one_size(source) if size is None else size
    data = prepare(source, size=side, channels=channels, hold_out=0.0, cache=cache, progress=progress)
    return of_dataset(data, np.arange(len(data.pixels)))


def _one_size(source: Source) -> tuple[int, int]:
    """The size that all pictures have; those that cannot be read are left to `prepare` to tell."""
    found: dict[tuple[int, int], str] = {}
    for i, item in enumerate(source.items):
        try:
            header = source.header(i)
        except ImageFileError:
            continue
        found.setdefault((header.height, header.width), item.name)
    if len(found) > 1:
        (first, one), (second, other), *_ = found.items()
        raise SettingsError(
            f"{source.name}: {one} is {first[1]} x {first[0]} pixels and {other} {second[1]} x {second[0]}: "
            "figures are of pictures of one size, bring them to one or say which with --size"
        )
    return next(iter(found), (1, 1))


def of_tensor(
    pictures: Tensor,
    name: str,
    classes: Sequence[int] | None = None,
    class_names: tuple[str, ...] = (),
    captions: Sequence[str] | None = None,
) -> PictureSet:
    """Pictures in memory, (n, C, H, W) in [-1, 1], as the bytes that a file of them would hold."""
    pixels = np.stack([_with_channels(to_bytes(one)) for one in pictures])
    read = partial(_of_array, pixels)
    return PictureSet(
        name=name,
        digests=_digests(read, len(pixels)),
        shape=(pictures.shape[1], pictures.shape[2], pictures.shape[3]),
        read=read,
        classes=None if classes is None else tuple(classes),
        class_names=class_names,
        captions=None if captions is None else tuple(captions),
    )


def _with_channels(pixels: Any) -> np.ndarray:
    return pixels[..., None] if pixels.ndim == 2 else pixels


def of_run(
    run: Run, n: int, seed: int = 0, cache: Path | None = None, told: Progress | None = None, **said: Any
) -> PictureSet:
    """n pictures that the run draws, once, kept on disk as the bytes that `sfumato sample` would write.

    said: what `Run.recipe` takes. Of a model with classes, the classes take turns where none are said. In
    `cache`, a folder, they stay and are found again by the same question of the same weights on the same
    kind of machine; without it they go with the set. told: (done, n) on the way. Raises SettingsError,
    RunError.
    """
    if run.classes and said.get("classes") is None:
        said["classes"] = [i % len(run.classes) for i in range(n)]
    recipe = run.recipe(n, seed=seed, **said)
    if cache is None:
        own = Path(tempfile.mkdtemp(prefix="sfumato-samples-"))
        drawn = _drawn(run, recipe, own / "drawn", told)
        weakref.finalize(drawn.read, shutil.rmtree, own, ignore_errors=True)
        return drawn
    key = origin(run, recipe, run.path / "sample").model_dump_json(exclude={"run", "index", "columns"})
    folder = cache / f"samples-{hashlib.sha256(key.encode()).hexdigest()[:24]}"
    return _drawn(run, recipe, folder, told)


def _drawn(run: Run, recipe: Recipe, folder: Path, told: Progress | None) -> PictureSet:
    """The recipe's pictures in this folder, drawn if they are not there."""
    found = store.read(folder)
    if found is None:
        image = run.card.image
        need = len(recipe.seeds) * image.channels * image.height * image.width * (1 + (image.bits == 16))
        store.write(folder, need, lambda into: _draw(run, recipe, into / "pixels.bin", told))
        found = store.read(folder)
    if found is None:
        raise SettingsError(f"{folder}: the pictures that were drawn vanished: try again")
    pixels, manifest = found
    classes = None if recipe.classes is None else [c for c in recipe.classes if c is not None]
    prompts = recipe.prompts or (recipe.pulled.texts if recipe.pulled is not None else None)
    return PictureSet(
        name=f"{run.path.name}, {recipe.sampler}, {len(recipe.seeds)} pictures",
        digests=tuple(manifest["digests"]),
        shape=run.card.image.shape,
        read=partial(_of_array, pixels),
        classes=tuple(classes) if classes is not None and len(classes) == len(recipe.seeds) else None,
        class_names=run.classes,
        captions=None if prompts is None else tuple(prompt or "" for prompt in prompts),
    )


def _draw(run: Run, recipe: Recipe, file: Path, told: Progress | None) -> dict[str, Any]:
    image = run.card.image
    digests: list[str] = []
    with file.open("wb") as out:
        for part in recipe.parts():
            made = (run.make(part) - image.low) / (image.high - image.low) * 2 - 1
            for picture in made:
                pixels = _with_channels(to_bytes(picture, deep=image.bits == 16))
                digests.append(digest(pixels))
                out.write(np.ascontiguousarray(pixels).data)
            if told is not None:
                told(len(digests), len(recipe.seeds))
        out.flush()
    shape = [len(digests), image.height, image.width, image.channels]
    kind = "uint16" if image.bits == 16 else "uint8"
    return {"version": store.VERSION, "shape": shape, "dtype": kind, "digests": digests}
