"""libringtap.so by way of ctypes: the functions of ringtap.h with their types, and errors as exceptions."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
from ctypes import (
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_double,
    c_int,
    c_int32,
    c_int64,
    c_long,
    c_size_t,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Callable

OK, NONE, OFF = 0, 1, 2

__all__ = ["Error", "library", "check", "text_of"]


class Error(Exception):
    """What the library refuses; `code` is one of `enum ringtap_result`."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Symbol(Structure):
    _fields_ = [("value", c_uint64), ("text", c_char_p)]


class Field(Structure):
    _fields_ = [
        ("name", c_char_p),
        ("type", c_uint8),
        ("shape", c_uint8),
        ("show", c_uint8),
        ("reserved", c_uint8),
        ("count", c_uint32),
        ("symbols", POINTER(Symbol)),
        ("symbol_count", c_size_t),
    ]


class Event(Structure):
    _fields_ = [
        ("on", c_uint32),
        ("abi", c_uint32),
        ("system", c_char_p),
        ("name", c_char_p),
        ("fields", POINTER(Field)),
        ("field_count", c_size_t),
        ("print", c_char_p),
        ("print_args", c_char_p),
        ("known", c_void_p),
    ]


class Bytes(Structure):
    _fields_ = [("start", c_void_p), ("length", c_size_t)]


class Config(Structure):
    _fields_ = [
        ("subbuf_size", c_uint32),
        ("ring_subbufs", c_uint32),
        ("discard", c_uint32),
        ("buffer_percent", c_uint32),
        ("locked", c_uint32),
        ("off", c_uint32),
        ("clock", c_char_p),
        ("directory", c_char_p),
    ]


class Stats(Structure):
    _fields_ = [
        (name, c_uint64) for name in ("written", "unread", "overwritten", "read", "dropped", "refused")
    ]


class Item(Structure):
    _fields_ = [
        ("kind", c_uint32),
        ("cpu", c_uint32),
        ("ns", c_uint64),
        ("lost", c_uint64),
        ("id", c_uint32),
        ("pid", c_int32),
        ("payload", c_void_p),
        ("length", c_size_t),
    ]


_HANDLE = c_void_p
_FUNCTIONS: dict[str, tuple[object, list[object]]] = {
    "last_error": (c_char_p, []),
    "version": (c_char_p, []),
    "init": (c_int, []),
    "attach": (c_int, [c_char_p, c_int]),
    "trace_to": (c_int, [_HANDLE]),
    "detach": (c_int, []),
    "socket": (c_char_p, []),
    "declare": (c_int, [POINTER(Event)]),
    "forget": (None, [POINTER(Event)]),
    "event_id": (c_int, [POINTER(Event)]),
    "event_set_on": (c_int, [POINTER(Event), c_int]),
    "event_format": (c_long, [POINTER(Event), c_char_p, c_size_t]),
    "write_short": (c_int, [POINTER(Event), c_uint64, c_uint64, c_size_t]),
    "write_words": (c_int, [POINTER(Event), POINTER(c_uint64), c_size_t]),
    "write_tails": (c_int, [POINTER(Event), POINTER(c_uint64), POINTER(Bytes)]),
    "print_n": (c_int, [c_char_p, c_size_t]),
    "print_raw": (c_int, [c_uint32, c_char_p, c_size_t]),
    "host_new": (c_int, [POINTER(Config), POINTER(_HANDLE)]),
    "host_connect": (c_int, [c_char_p, POINTER(_HANDLE)]),
    "host_serve": (c_int, [_HANDLE, c_char_p]),
    "host_set_recording": (c_int, [_HANDLE, c_int]),
    "host_free": (None, [_HANDLE]),
    "host_stats": (c_int, [_HANDLE, POINTER(Stats)]),
    "reader_new": (c_int, [_HANDLE, c_int, POINTER(_HANDLE)]),
    "cursor_new": (c_int, [_HANDLE, c_int, c_int, POINTER(_HANDLE)]),
    "file_open": (c_int, [c_char_p, POINTER(_HANDLE)]),
    "reader_free": (None, [_HANDLE]),
    "reader_next": (c_int, [_HANDLE, POINTER(Item)]),
    "reader_wait": (c_int, [_HANDLE, c_int]),
    "reader_event": (c_char_p, [_HANDLE]),
    "reader_int": (c_int, [_HANDLE, c_char_p, POINTER(c_int64)]),
    "reader_uint": (c_int, [_HANDLE, c_char_p, POINTER(c_uint64)]),
    "reader_double": (c_int, [_HANDLE, c_char_p, POINTER(c_double)]),
    "reader_bytes": (c_int, [_HANDLE, c_char_p, POINTER(Bytes)]),
    "reader_print": (c_long, [_HANDLE, c_char_p, c_size_t]),
    "reader_events": (c_long, [_HANDLE, c_char_p, c_size_t]),
    "reader_batch": (c_int, [_HANDLE, c_char_p, c_size_t, c_void_p, c_void_p]),
}


class Library:
    """The functions of ringtap.h, without their prefix."""

    def __init__(self, path: str) -> None:
        loaded = ctypes.CDLL(path)
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(loaded, f"ringtap_{name}")
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)


def _load() -> Library:
    named = os.environ.get("RINGTAP_LIBRARY")
    path = named or ctypes.util.find_library("ringtap") or "libringtap.so.0"
    try:
        return Library(path)
    except OSError as error:
        raise ImportError(
            f"{error}: install it with `cargo xtask install-capi`, or name it in RINGTAP_LIBRARY"
        ) from error


library = _load()


def check(result: int) -> int:
    """A result that is no error."""
    if result < 0:
        raise Error(result, library.last_error().decode())
    return result


def text_of(call: Callable[[object, int], int]) -> str:
    """A text that a function writes as snprintf does."""
    size = 512
    while True:
        buffer = ctypes.create_string_buffer(size)
        length = check(call(buffer, size))
        if length < size:
            return buffer.raw[:length].decode(errors="replace")
        size = length + 1


def handle(call: Callable[[object], int]) -> c_void_p:
    """A handle that a function makes."""
    made = c_void_p()
    check(call(byref(made)))
    return made
