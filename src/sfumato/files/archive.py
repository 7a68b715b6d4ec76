"""Where the members of a zip archive lie: zipfile reads its directory, which is held to what PyTorch writes.

Stored members (nothing is unpacked, so there are no zip bombs), no encryption, names once, no byte in two
members.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable

MOST_MEMBERS = 70_000
_LARGEST_DIRECTORY = 16 << 20

Read = Callable[[int, int], bytes]
"""(start, size) -> these bytes of the file, or ValueError where it has not so many."""


class _File(io.FileIO):
    """What zipfile sees: the open file, never more than a directory of it at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _LARGEST_DIRECTORY:
            raise zipfile.BadZipFile
        return super().read(size) or b""


def members(handle: int, size: int) -> dict[str, zipfile.ZipInfo]:
    """The members of the archive of `size` bytes that is open as `handle`, by name.

    Raises ValueError with a clause that completes "it holds ...".
    """
    try:
        listed = zipfile.ZipFile(_File(handle, closefd=False)).infolist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error, OSError):
        raise ValueError("no directory of its members") from None
    if len(listed) > MOST_MEMBERS:
        raise ValueError(f"a directory of {len(listed):,} members (at most {MOST_MEMBERS:,})")
    found = {member.filename: member for member in listed}
    if len(found) < len(listed):
        raise ValueError("two members of one name")
    end = 0
    for member in sorted(listed, key=lambda one: one.header_offset):
        if member.flag_bits & 1 or member.compress_type or member.compress_size != member.file_size:
            raise ValueError("a member that is packed or encrypted, as torch.save writes none")
        if member.header_offset < end:  # many large tensors would come out of a small file
            raise ValueError("members that lie in one another")
        end = member.header_offset + 30 + member.file_size
    if end > size:
        raise ValueError("a member beyond its end")
    return found


def begin(read: Read, member: zipfile.ZipInfo) -> int:
    """Where a member's content begins, behind its own header. Raises ValueError."""
    head = read(member.header_offset, 30)
    if head[:4] != b"PK\x03\x04":
        raise ValueError("a member without a header")
    name, extra = struct.unpack("<2H", head[26:30])
    return member.header_offset + 30 + name + extra
