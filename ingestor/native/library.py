"""Find and load the compiled library, or say why there is none.

The environment variable INGESTOR_NATIVE decides: "off" leaves it out, "required" makes it an error
that there is none, and a path names another file. Without it, the library is used if it is there.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from ingestor.model.errors import ConfigError
from ingestor.native.build import LIBRARY, SOURCES, sources_digest
from ingestor.native.layouts import SIZES

VARIABLE: Final = "INGESTOR_NATIVE"
_POINTER: Final = ctypes.c_void_p
_INT: Final = ctypes.c_int64
# Name, type of the result, types of the arguments.
_FUNCTIONS: Final = (
    ("native_hash", ctypes.c_uint64, (ctypes.c_char_p, ctypes.c_uint64)),
    ("native_take", _INT, (_POINTER, ctypes.c_char_p, _INT, _INT, _INT, _INT, _INT)),
    ("native_take_each", _INT, (_POINTER, ctypes.c_char_p, _POINTER, _POINTER, _INT, _INT, _INT)),
    ("native_records", ctypes.c_int, (_POINTER, _POINTER, _POINTER, *[_INT] * 5)),
    ("native_books", None, (*[_POINTER] * 5, *[_INT] * 3)),
    ("native_follow", _INT, (_POINTER, _INT, _POINTER, _INT, _POINTER, _POINTER)),
    ("native_highest", _INT, (_POINTER, _INT, _INT, _POINTER, _INT)),
    ("native_count_rows", _INT, (_POINTER, _POINTER, _INT, _INT, _INT)),
    ("native_count_ways", None, (_POINTER, _POINTER, _INT, _POINTER, _POINTER)),
    ("native_read", ctypes.c_int, (_POINTER, ctypes.c_char_p, ctypes.c_uint64)),
    (
        "native_crc32c",
        ctypes.c_uint32,
        (ctypes.c_char_p, ctypes.c_uint64, _POINTER, ctypes.c_int),
    ),
)


@dataclass(frozen=True, slots=True)
class Native:
    """The way frames are read. library: None where that is Python; reason: why."""

    library: ctypes.CDLL | None
    reason: str

    @property
    def way(self) -> str:
        """Return "compiled" or "python"."""
        return "python" if self.library is None else "compiled"


@cache
def native() -> Native:
    """Return the way of this process.

    Raises ConfigError where a library is required and none can be used.
    """
    wish = os.environ.get(VARIABLE, "")
    if wish == "off":
        return Native(None, f"{VARIABLE} is off")
    path = LIBRARY if wish in {"", "required"} else Path(wish)
    found = load(path)
    if found.library is None and wish:
        hint = "install the project again where there is a C compiler, or run: make native"
        raise ConfigError(f"{VARIABLE}={wish}: {found.reason}", where=VARIABLE, hint=hint)
    return found


def load(path: Path) -> Native:
    """Load a library, unless it does not fit this program or this machine."""
    if not path.exists():
        return Native(None, "it was not compiled when the project was installed")
    if sys.byteorder != "little":
        return Native(None, "the compiled way needs a little-endian machine")
    try:
        library = ctypes.CDLL(str(path))
        problem = _misfit(library)
    except (OSError, AttributeError) as failure:
        return Native(None, f"{path.name} can't be loaded: {failure}")
    return Native(None, problem) if problem else Native(library, str(path))


def _misfit(library: ctypes.CDLL) -> str | None:
    """Declare the functions of a library; return why it can't be used, None where it can."""
    library.native_sources.restype = ctypes.c_char_p
    if SOURCES.exists() and library.native_sources() != sources_digest().encode():
        return "it was compiled from other sources: install the project again"
    library.native_size.restype = ctypes.c_uint64
    if tuple(library.native_size(which) for which in range(len(SIZES))) != SIZES:
        return "its structures have other sizes"
    for name, result, arguments in _FUNCTIONS:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return None
