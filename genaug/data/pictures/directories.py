"""Directories of TIFF files: read entry by entry, and written again, at the end of the file, with some entries changed.

Entries are carried over as they are, so that what they point to (EXIF, color profiles, private tags) stays in place.
Structure after TIFF 6.0, section 2; files with 64-bit offsets (BigTIFF) differ in the sizes of numbers only.
"""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Literal

from genaug.errors import DataError

SHORT, LONG, LONG8 = 3, 4, 16  # types of values that are written here
CODES = {SHORT: "H", LONG: "I", LONG8: "Q"}
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


@dataclass(frozen=True)
class Entry:
    """An entry of a directory: the type of its values, their number, and its field, with the values or their place."""

    kind: int
    count: int
    field: bytes


Directory = list[tuple[int, Entry]]  # by tag; some writers give a tag twice


@dataclass(frozen=True)
class Layout:
    """How numbers are written in a file: the byte order, "<" or ">", and whether offsets have 64 bits."""

    order: Literal["<", ">"]
    big: bool

    @property
    def width(self) -> int:
        """Bytes of an offset, of the number of values and of a field."""
        return 8 if self.big else 4

    @property
    def offset_kind(self) -> int:
        """The type of offsets."""
        return LONG8 if self.big else LONG

    @property
    def header(self) -> bytes:
        """The start of a file, but for where its first directory is."""
        mark = b"II" if self.order == "<" else b"MM"
        return mark + (self.pack("HHH", 43, 8, 0) if self.big else self.pack("H", 42))

    def pack(self, codes: str, *values: int) -> bytes:
        """Return numbers as `struct` packs them in the byte order of the file."""
        return struct.pack(self.order + codes, *values)

    def pack_offset(self, value: int) -> bytes:
        """Return an offset.

        Raises:
            DataError: an offset that has more than 32 bits, without BigTIFF.
        """
        if value >= 1 << 8 * self.width:
            raise DataError(
                "the picture does not fit into a TIFF file of 4 GB; store it as BigTIFF or without compression"
            )
        return self.pack(CODES[self.offset_kind], value)

    def read(self, file: IO[bytes], code: str) -> int:
        """Return the next number of a file."""
        (value,) = struct.unpack(self.order + code, file.read(struct.calcsize("=" + code)))
        return int(value)


def read_layout(file: IO[bytes]) -> Layout:
    """Return the layout of a TIFF file from its first bytes."""
    start = file.read(4)
    return Layout("<" if start[:2] == b"II" else ">", big=43 in start[2:])


def read_directories(file: IO[bytes], layout: Layout) -> list[Directory]:
    """Return the directories of all pages in the order of the file.

    Raises:
        DataError: directories that lead back to an earlier one.
        struct.error: a file that is cut off.
    """
    directories: list[Directory] = []
    seen: set[int] = set()
    offset_code = CODES[layout.offset_kind]
    file.seek(len(layout.header))
    while offset := layout.read(file, offset_code):
        if offset in seen:
            raise DataError("its pages lead back to an earlier one")
        seen.add(offset)
        file.seek(offset)
        directory: Directory = []
        for _ in range(layout.read(file, "Q" if layout.big else "H")):
            code, kind = layout.read(file, "H"), layout.read(file, "H")
            directory.append((code, Entry(kind, layout.read(file, offset_code), file.read(layout.width))))
        directories.append(directory)
    return directories


def read_values(file: IO[bytes], layout: Layout, entry: Entry) -> bytes:
    """Return the values of an entry as they are in the file."""
    length = SIZES[entry.kind] * entry.count
    if length <= layout.width:
        return entry.field[:length]
    (offset,) = struct.unpack(layout.order + CODES[layout.offset_kind], entry.field)
    file.seek(offset)
    return file.read(length)


def write_entry(file: IO[bytes], layout: Layout, kind: int, values: bytes | Sequence[int]) -> Entry:
    """Return an entry for values, written at the end of the file where they are too long for its field.

    Args:
        file: to write to.
        layout: of that file.
        kind: the type of the values.
        values: numbers of a type in `CODES`, or bytes as they are in the file.
    """
    content = values if isinstance(values, bytes) else layout.pack(f"{len(values)}{CODES[kind]}", *values)
    count = len(content) // SIZES[kind]
    if len(content) <= layout.width:
        return Entry(kind, count, content.ljust(layout.width, b"\0"))
    place = seek_end(file)
    file.write(content)
    return Entry(kind, count, layout.pack_offset(place))


def append_directory(file: IO[bytes], layout: Layout, entries: Directory, *, pointer: int) -> int:
    """Write the directory of a last page at the end of the file; return where the place of the next one belongs.

    Args:
        file: to write to.
        layout: of that file.
        entries: of the directory.
        pointer: where the place of this one belongs: what the call for the page before returned, or for the first page
            the length of `layout.header`.
    """
    place = seek_end(file)
    file.write(layout.pack("Q" if layout.big else "H", len(entries)))
    code_of_count = CODES[layout.offset_kind]
    for code, entry in sorted(entries, key=lambda entry: entry[0]):
        file.write(layout.pack("HH" + code_of_count, code, entry.kind, entry.count) + entry.field)
    following = file.tell()
    file.write(layout.pack_offset(0))
    file.seek(pointer)
    file.write(layout.pack_offset(place))
    return following


def seek_end(file: IO[bytes]) -> int:
    """Move to the end of a file, at an even place as TIFF wants it, and return the place."""
    place = file.seek(0, io.SEEK_END)
    if place % 2:
        place += file.write(b"\0")
    return place
