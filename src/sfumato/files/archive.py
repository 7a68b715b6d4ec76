"""Where the members of a zip archive lie, read from its directory by strict rules (PKWARE's APPNOTE 6.3).

Only what PyTorch writes is read: stored members (nothing is unpacked, so there are no zip bombs), one disk,
no encryption, names once, no byte in two members.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

MOST_MEMBERS = 70_000
_LARGEST_DIRECTORY = 32 << 20
_TAIL = 22 + 65_535

Read = Callable[[int, int], bytes]
"""(start, size) -> these bytes of the file, or ValueError where it has not so many."""


class Member(NamedTuple):
    """One file in the archive: its header begins at `header`; `crc` is the CRC-32 of its content."""

    name: str
    header: int
    size: int
    crc: int


def _end(read: Read, size: int) -> tuple[int, int, int]:
    """The number of members, and where the directory is and how long."""
    tail_at = max(0, size - _TAIL)
    tail = read(tail_at, size - tail_at)
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or len(tail) - found < 22:
        raise ValueError("no directory of its members")
    disk, first, here, total, length, start, _ = struct.unpack("<4H2LH", tail[found + 4 : found + 22])
    before = tail_at + found - 20
    if 0xFFFF in (here, total) or 0xFFFFFFFF in (length, start) or (before >= 0 and _is64(read, before)):
        kind, _, at, _ = struct.unpack("<4sLQL", read(before, 20)) if before >= 0 else (b"", 0, 0, 0)
        if kind != b"PK\x06\x07":
            raise ValueError("no directory of its members")
        kind, _, _, _, disk, first, here, total, length, start = struct.unpack("<4sQ2H2L4Q", read(at, 56))
        if kind != b"PK\x06\x06":
            raise ValueError("no directory of its members")
    if disk or first or here != total:
        raise ValueError("members on other disks")
    if total > MOST_MEMBERS or length > _LARGEST_DIRECTORY:
        raise ValueError(f"a directory of {total:,} members (at most {MOST_MEMBERS:,})")
    return total, start, length


def _is64(read: Read, at: int) -> bool:
    return read(at, 4) == b"PK\x06\x07"


def _wide(extra: bytes, numbers: list[int]) -> list[int]:
    """Those of the sizes and the place that do not fit into 32 bits, from the zip64 field."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            field = extra[at + 4 : at + 4 + length]
            wide = iter(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
            return [next(wide, n) if n == 0xFFFFFFFF else n for n in numbers]
        at += 4 + length
    return numbers


def members(read: Read, size: int) -> dict[str, Member]:
    """The members of an archive of `size` bytes, by name.

    Raises ValueError with a clause that completes "it holds ...".
    """
    total, start, length = _end(read, size)
    directory = read(start, length)
    found: dict[str, Member] = {}
    at = 0
    for _ in range(total):
        if directory[at : at + 4] != b"PK\x01\x02" or len(directory) - at < 46:
            raise ValueError("a directory that is cut off")
        _, _, flags, method, _, _, crc, packed, unpacked, *lengths, disk, _, _, header = struct.unpack_from(
            "<6H3L5H2L", directory, at + 4
        )
        name_end = at + 46 + lengths[0]
        extra_end = name_end + lengths[1]
        name = directory[at + 46 : name_end].decode("utf-8", "backslashreplace")
        unpacked, packed, header = _wide(directory[name_end:extra_end], [unpacked, packed, header])
        if flags & 1 or method or packed != unpacked or disk:
            raise ValueError("a member that is packed or encrypted, as torch.save writes none")
        if name in found:
            raise ValueError("two members of one name")
        if header + 30 + unpacked > size:
            raise ValueError("a member beyond its end")
        found[name] = Member(name, header, unpacked, crc)
        at = extra_end + lengths[2]
    _check_apart(found)
    return found


def _check_apart(found: dict[str, Member]) -> None:
    """No two members may claim the same bytes: many large tensors would come out of a small file."""
    end = 0
    for member in sorted(found.values(), key=lambda m: m.header):
        if member.header < end:
            raise ValueError("members that lie in one another")
        end = member.header + 30 + member.size


def begin(read: Read, member: Member) -> int:
    """Where a member's content begins, behind its own header. Raises ValueError."""
    head = read(member.header, 30)
    if head[:4] != b"PK\x03\x04":
        raise ValueError("a member without a header")
    name, extra = struct.unpack("<2H", head[26:30])
    return member.header + 30 + name + extra
