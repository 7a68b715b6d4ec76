"""Pictures in one .npz file, in the layouts that are about.

- ours: `images` (N, H, W) or (N, H, W, C), optional `alpha`, `labels`, `label_names`, `captions`;
- guided-diffusion's sample and reference batches: `arr_0` (N, H, W, C), optional labels `arr_1`;
- packed files: `jpeg` (all bytes), `offsets` (N + 1), optional `labels`, `label_names`.

Images are uint8 or uint16; (N, C, H, W) is understood when the last axis cannot be channels. A label of -1,
or an empty word, is a class that is not known. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from sfumato.data.captions import caption_lines
from sfumato.data.decode import Header, Picture, decode, probe, shown
from sfumato.data.source import Item, Source, settle_labels
from sfumato.errors import DataError

_LARGEST = 64 << 30
_KNOWN = ("images", "alpha", "labels", "label_names", "captions", "arr_0", "arr_1", "jpeg", "offsets")
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def read_arrays(path: Path) -> Source:
    """Lists the pictures of an .npz file. Raises DataError when it is none, damaged, or of no known
    layout.
    """
    parts = _load(path)
    if "jpeg" in parts and "offsets" in parts:
        return _packed(path, parts)
    pixels = parts.get("images", parts.get("arr_0"))
    if pixels is None:
        raise DataError(
            f"{shown(path)} holds no pictures: it needs an array `images` (N, H, W, C) of uint8, or `arr_0`, "
            "or `jpeg` with `offsets`"
        )
    images = _channels_last(path, pixels, parts.get("alpha"))
    labels = parts.get("labels", parts.get("arr_1") if "arr_0" in parts else None)
    return _source(path, parts, labels, len(images), partial(_header, images), partial(_read, images))


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as file:
            unpacked = sum(part.file_size for part in file.infolist())
        if unpacked > _LARGEST:
            raise DataError(f"{shown(path)} unpacks to {unpacked:,} bytes, more than {_LARGEST:,}")
        with np.load(path, allow_pickle=False) as file:
            parts = {name: file[name] for name in _KNOWN if name in file.files}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"{shown(path)} holds Python objects (an object array), and loading such may run code: "
                "save plain arrays instead"
            ) from None
        raise DataError(f"{shown(path)} cannot be read as an .npz file ({shown(str(error))[:120]})") from None
    except MemoryError:
        raise DataError(f"{shown(path)} does not fit into memory: use a folder of pictures instead") from None
    strange = [name for name, part in parts.items() if not isinstance(part, np.ndarray)]
    if strange:
        raise DataError(f"`{strange[0]}` in {shown(path)} is no array")
    return parts


def _channels_last(path: Path, a: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """(N, H, W, C); a view."""
    if a.dtype.name not in ("uint8", "uint16"):
        raise DataError(
            f"the pictures in {shown(path)} are {a.dtype}: save them as uint8 (0 to 255) or uint16"
        )
    if a.ndim == 3:
        a = a[..., None]
    if a.ndim == 4 and a.shape[3] not in _MODES and a.shape[1] in _MODES:
        a = a.transpose(0, 2, 3, 1)
    if a.ndim != 4 or a.shape[3] not in _MODES or 0 in a.shape:
        raise DataError(
            f"the pictures in {shown(path)} have the shape {a.shape}, not (N, H, W, C) with C of 1 to 4"
        )
    if alpha is None:
        return a
    if alpha.dtype != a.dtype or alpha.shape != a.shape[:3] or a.shape[3] not in (1, 3):
        raise DataError(
            f"`alpha` in {shown(path)} must be {a.dtype} {a.shape[:3]}, not {alpha.dtype} {alpha.shape}"
        )
    return np.concatenate([a, alpha[..., None]], axis=3)


def _header(images: np.ndarray, i: int) -> Header:
    return Header(images.shape[2], images.shape[1], _mode(images), "npz")


def _read(images: np.ndarray, i: int) -> Picture:
    return Picture(np.ascontiguousarray(images[i]), _mode(images), "npz", str(images.dtype))


def _mode(images: np.ndarray) -> str:
    if images.dtype == np.uint16:
        return "I;16" if images.shape[3] == 1 else _MODES[images.shape[3]] + ";16"
    return _MODES[images.shape[3]]


def _packed(path: Path, parts: dict[str, np.ndarray]) -> Source:
    data, offsets = parts["jpeg"], parts["offsets"]
    whole = np.issubdtype(offsets.dtype, np.integer) and offsets.ndim == 1 and len(offsets) >= 2
    if data.dtype != np.uint8 or data.ndim != 1 or not whole:
        raise DataError(f"`jpeg` and `offsets` in {shown(path)} must be bytes and N + 1 whole numbers")
    if (
        int(offsets[0]) < 0
        or int(offsets[-1]) > len(data)
        or bool((np.diff(offsets.astype(np.int64)) < 0).any())
    ):
        raise DataError(f"`offsets` in {shown(path)} do not lie one after the other inside `jpeg`")

    def bytes_of(i: int) -> bytes:
        return data[int(offsets[i]) : int(offsets[i + 1])].tobytes()

    count = len(offsets) - 1
    return _source(
        path,
        parts,
        parts.get("labels"),
        count,
        lambda i: probe(bytes_of(i)),
        lambda i: decode(bytes_of(i)),
    )


def _source(
    path: Path,
    parts: dict[str, np.ndarray],
    labels: np.ndarray | None,
    count: int,
    header: Callable[[int], Header],
    read: Callable[[int], Picture],
) -> Source:
    names = [str(name) for name in parts["label_names"].tolist()] if "label_names" in parts else []
    given: list[str | None] = [None] * count if labels is None else _labels(path, labels, names, count)
    given, label_names, notes = settle_labels(given, names if labels is not None else ())
    captions = _captions(path, parts.get("captions"), count)
    about = path.stat()
    stamp = repr((str(path.absolute()), about.st_size, about.st_mtime_ns)).encode("utf-8", "backslashreplace")
    items = (Item(f"{path.name}#{i}", given[i], captions[i]) for i in range(count))
    return Source(
        name=path.stem,
        items=tuple(items),
        label_names=label_names,
        flaws=(),
        notes=notes,
        stamp=hashlib.sha256(stamp).hexdigest(),
        header=header,
        read=read,
    )


def _labels(path: Path, labels: np.ndarray, names: list[str], count: int) -> list[str | None]:
    if labels.shape != (count,) or labels.dtype.kind not in "iuU":
        raise DataError(
            f"the labels in {shown(path)} must be {count} whole numbers or words, "
            f"not {labels.dtype} {labels.shape}"
        )
    if names and labels.dtype.kind != "U":
        low, high = int(labels.min()), int(labels.max())
        if low < -1 or high >= len(names):
            raise DataError(
                f"labels in {shown(path)} go from {low} to {high}, but there are {len(names)} label_names"
            )
        return [names[label] if label >= 0 else None for label in labels.tolist()]
    words = [None if label in (-1, "") else str(label) for label in labels.tolist()]
    unknown = sorted({word for word in words if word is not None} - set(names)) if names else []
    if unknown:
        raise DataError(f"labels in {shown(path)} name {unknown[0]!r}, which is not in its label_names")
    return words


def _captions(path: Path, captions: np.ndarray | None, count: int) -> list[tuple[str, ...]]:
    if captions is None:
        return [()] * count
    if captions.shape != (count,) or captions.dtype.kind != "U":
        raise DataError(
            f"the captions in {shown(path)} must be {count} texts, not {captions.dtype} {captions.shape}"
        )
    return [caption_lines(str(text).replace("\0", "")) for text in captions.tolist()]
