"""An LMDB's entries, read from its file with plain reads.

LMDB's own library maps the file and trusts it: a file cut short or damaged ends the process. Here
nothing is mapped, and every number is checked before it is followed. Only what LSUN needs is read:
one unnamed database with one value a key, written by a 64-bit little-endian machine.

The format (https://git.openldap.org, `mdb.c`): pages of equal size; the first two hold the
descriptions of two states of the tree, of which the one with the larger transaction counts. A
branch page's nodes point to pages, a leaf page's hold a key and its value or, where the value is
large, the number of the first of the pages that hold it.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

MAGIC, VERSION = 0xBEEFC0DE, 1
HEADER = struct.Struct("<QHHHH")  # number, padding, flags, end of the pointers, start of the nodes
NODE = struct.Struct("<HHHH")  # value's size (or page) low and high, flags, key's size
STATE = struct.Struct("<IIQQ IHHQQQQQ IHHQQQQQ QQ")
BRANCH, LEAF, OVERFLOW, META = 1, 2, 4, 8
BIG, NAMED, MANY = 1, 2, 4  # flags of a node: value on pages of its own, a database, a set
SORTED_SETS = 4  # flag of a database that may hold many values a key
EMPTY = 2**64 - 1
DEEPEST = 32  # as in LMDB itself


class _State(NamedTuple):
    """What a description says of the tree."""

    transaction: int
    page_size: int
    last_page: int
    root: int
    depth: int
    entries: int


class LmdbFile:
    """The entries of an LMDB: `keys` in order, and `read` for a key's value.

    Args:
        path: of the file, `data.mdb`.

    Raises:
        ValueError: a file that is no LMDB, is shorter than it says, or whose tree is damaged.
        OSError: a file that cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        try:
            self._state = self._newest()
            self._places: dict[bytes, tuple[int, int, bool]] = {}
            self._seen: set[int] = set()
            if self._state.root != EMPTY:
                self._walk(self._state.root, 1)
            if len(self._places) != self._state.entries:
                raise ValueError(f"it states {self._state.entries} keys, got {len(self._places)}")
        except BaseException:
            self._file.close()
            raise

    @property
    def keys(self) -> list[bytes]:
        """The keys, in the order of the file."""
        return list(self._places)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, key: bytes, largest: int) -> bytes:
        """The value of a key; ValueError for one of more than `largest` bytes or a damaged one."""
        place, size, big = self._places[key]
        if size > largest:
            raise ValueError(f"holds {size} bytes; a picture has at most {largest}")
        if big:
            pages = self._check_overflow(place, size)
            place = place * self._state.page_size + HEADER.size
            if size + HEADER.size > pages * self._state.page_size:
                raise ValueError("the LMDB is damaged where it lies")
        content = self._at(place, size)
        if len(content) != size:
            raise ValueError("the LMDB is cut short where it lies")
        return content

    def _check_overflow(self, number: int, size: int) -> int:
        """How many pages the value that begins on this page has; ValueError for a damaged one."""
        found, _, flags, low, high = HEADER.unpack(self._at(self._offset(number), HEADER.size))
        pages = int(low | high << 16)
        if found != number or not flags & OVERFLOW or number + pages > self._state.last_page + 1:
            raise ValueError("the LMDB is damaged where it lies")
        return pages

    def _at(self, offset: int, size: int) -> bytes:
        """What the file holds there; less than `size` at its end."""
        self._file.seek(offset)
        return self._file.read(size)

    def _offset(self, number: int) -> int:
        if not 2 <= number <= self._state.last_page:
            raise ValueError(f"page {number} of {self._state.last_page + 1} is referred to")
        return number * self._state.page_size

    def _newest(self) -> _State:
        """The newer of the two descriptions; ValueError where the file is shorter than it says."""
        first = self._described(0)
        if first is None:
            raise ValueError("it does not begin as an LMDB of a 64-bit little-endian machine does")
        second = self._described(first.page_size)
        state = max((s for s in (first, second) if s is not None), key=lambda s: s.transaction)
        size = os.fstat(self._file.fileno()).st_size
        if (state.last_page + 1) * state.page_size > size:
            raise ValueError(
                f"it is cut short: it states {(state.last_page + 1) * state.page_size} bytes, got"
                f" {size}"
            )
        return state

    def _described(self, offset: int) -> _State | None:
        """The description on the page there; None where there is none."""
        content = self._at(offset, HEADER.size + STATE.size)
        if len(content) < HEADER.size + STATE.size:
            return None
        flags = HEADER.unpack_from(content)[2]
        magic, version, _, _, *fields = STATE.unpack_from(content, HEADER.size)
        page_size, (main_flags, depth), entries, root = fields[0], fields[9:11], *fields[14:16]
        last_page, transaction = fields[16:]
        if magic != MAGIC or not flags & META:
            return None
        if version != VERSION:
            raise ValueError(f"its version must be {VERSION}, got {version}")
        if page_size not in {2**k for k in range(9, 17)}:
            raise ValueError(f"its pages must have 512 to 65536 bytes, got {page_size}")
        if main_flags & SORTED_SETS:
            raise ValueError("it must hold one value a key, got a database of sets")
        return _State(transaction, page_size, last_page, root, depth, entries)

    def _walk(self, number: int, depth: int) -> None:
        """Note the places of all values on and below a page."""
        size = self._state.page_size
        page = self._at(self._offset(number), size)
        if number in self._seen or depth > min(self._state.depth, DEEPEST) or len(page) < size:
            raise ValueError(f"page {number} is damaged")
        self._seen.add(number)
        found, _, flags, low, high = HEADER.unpack_from(page)
        leaf, kind = flags & LEAF, flags & (BRANCH | LEAF | OVERFLOW | META)
        if found != number or kind not in (BRANCH, LEAF) or not HEADER.size <= low <= high <= size:
            raise ValueError(f"page {number} is damaged")
        pointers = page[HEADER.size : low - low % 2]
        for (place,) in struct.iter_unpack("<H", pointers):
            if not high <= place <= size - NODE.size:
                raise ValueError(f"page {number} is damaged")
            first, second, node_flags, _ = NODE.unpack_from(page, place)
            if leaf:
                self._note(page, number, place)
            else:
                self._walk(first | second << 16 | node_flags << 32, depth + 1)

    def _note(self, page: bytes, number: int, place: int) -> None:
        """Note the place of a leaf node's value."""
        low, high, flags, length = NODE.unpack_from(page, place)
        start, size = place + NODE.size + length, low | high << 16
        if flags & (NAMED | MANY):
            raise ValueError("it must hold one unnamed database, got named ones or sets")
        if start + (8 if flags & BIG else size) > len(page):
            raise ValueError(f"page {number} is damaged")
        key = page[place + NODE.size : start]
        if flags & BIG:
            self._places[key] = (int.from_bytes(page[start : start + 8], "little"), size, True)
        else:
            self._places[key] = (number * len(page) + start, size, False)
