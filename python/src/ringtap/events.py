"""Declared events, markers and spans, and where they go."""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import struct
import weakref
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Mapping, Optional, Tuple, TypeVar, Union

from . import _library as c
from ._library import check, library

_TYPES = {
    "u8": (1, 1, "B"), "u16": (2, 2, "H"), "u32": (3, 4, "I"), "u64": (4, 8, "Q"),
    "s8": (5, 1, "b"), "s16": (6, 2, "h"), "s32": (7, 4, "i"), "s64": (8, 8, "q"),
    "ulong": (9, 8, "L"), "slong": (10, 8, "l"), "bool": (11, 1, "?"), "pointer": (12, 8, "Q"),
    "f32": (13, 4, "f"), "f64": (14, 8, "d"),
}  # fmt: skip
_CHAR = 15

#: A field's type: a name such as ``"u32"``, ``"string"``, ``"bytes"``, ``"u32[4]"``, ``"u32[]"``, ``"text[16]"``.
Type = str


#: The library looks at an event until it is forgotten, which the interpreter's end must not come before.
_declared: "weakref.WeakSet[Event]" = weakref.WeakSet()


@atexit.register
def _forget_all() -> None:
    for event in list(_declared):
        library.forget(event._pointer)


def _take_apart(kind: Type) -> Tuple[int, int, int, int, str]:
    """Type, shape, count, bytes of an element, its letter."""
    if kind == "string":
        return _CHAR, 2, 0, 1, ""
    if kind == "bytes":
        kind = "u8[]"
    element, _, rest = kind.partition("[")
    if element == "text" and rest:
        return _CHAR, 1, int(rest.rstrip("]")), 1, ""
    if element not in _TYPES or (rest and not rest.endswith("]")):
        raise ValueError(f"{kind!r} is no type of a field")
    number, size, letter = _TYPES[element]
    if not rest:
        return number, 0, 1, size, letter
    return (number, 1, int(rest[:-1]), size, letter) if rest != "]" else (number, 2, 0, size, letter)


class Event:
    """An event of this process.

    >>> served = Event("shop", "served", status="u16", took_ns="u64", path="string")
    >>> served(200, 81250, "/cart")  # doctest: +SKIP

    The same declaration in Rust, C or another process is the same event. While it is off, a call writes nothing.
    """

    def __init__(
        self,
        system: str,
        name: str,
        /,
        symbols: Optional[Mapping[str, Mapping[int, str]]] = None,
        flags: Optional[Mapping[str, Mapping[int, str]]] = None,
        **fields: Type,
    ) -> None:
        self.system, self.name, self.fields = system, name, dict(fields)
        shown = {**{n: (1, t) for n, t in (symbols or {}).items()}, **{n: (2, t) for n, t in (flags or {}).items()}}
        described = (c.Field * max(len(fields), 1))()
        self._puts: list[Tuple[str, int, str, int, int]] = []
        end = 8
        for field, (name_, kind) in zip(described, fields.items()):
            number, shape, count, size, letter = _take_apart(kind)
            show, table = shown.get(name_, (0, {}))
            entries = (c.Symbol * max(len(table), 1))(*((value, text.encode()) for value, text in table.items()))
            field.name, field.type, field.shape, field.show = name_.encode(), number, shape, show
            field.count, field.symbols, field.symbol_count = count, entries, len(table)
            align = 4 if shape == 2 else size
            end = (end + align - 1) // align * align
            self._puts.append((name_, shape, letter, count, end))
            end += {0: size, 1: size * count, 2: 4}[shape]
        self._end, self._dynamic = end, any(shape == 2 for _, shape, *_ in self._puts)
        self._length = 12 if end <= 8 else (end + 3) // 4 * 4
        self._layout = None
        if all(shape == 0 for _, shape, *_ in self._puts):
            # The common fields are the library's to fill.
            self._layout = struct.Struct("@8x" + "".join(letter for _, _, letter, *_ in self._puts))
        self._event = c.Event(0, 1, system.encode(), name.encode(), described, len(fields), None, None, None)
        self._described = described
        self._pointer = ctypes.pointer(self._event)
        check(library.declare(self._pointer))
        _declared.add(self)

    def __del__(self) -> None:
        if hasattr(self, "_pointer"):
            library.forget(self._pointer)

    @property
    def is_on(self) -> bool:
        """Whether the event is on in this process."""
        return self._event.on != 0

    @property
    def id(self) -> Optional[int]:
        """Its number in records, once it is registered."""
        return library.event_id(self._pointer) or None

    @property
    def format(self) -> str:
        """Its description, as the kernel's `format` files have it."""
        return c.text_of(lambda to, size: library.event_format(self._pointer, to, size))

    def set_on(self, on: bool) -> None:
        """Switches the event off in this process, or lets the host decide again."""
        check(library.event_set_on(self._pointer, on))

    def __call__(self, *values: Any, **named: Any) -> bool:
        """Writes the event if it is on; whether it was written."""
        if self._event.on == 0:
            return False
        if named:
            rest = list(self.fields)[len(values) :]
            if set(named) != set(rest):
                raise TypeError(f"{self.system}:{self.name} has the fields {', '.join(self.fields)}")
            values += tuple(named[name] for name in rest)
        if len(values) != len(self._puts):
            raise TypeError(f"{self.system}:{self.name} has the fields {', '.join(self.fields)}")
        return self._write(values) == c.OK

    def _write(self, values: Tuple[Any, ...]) -> int:
        words = (ctypes.c_uint64 * max((self._end + 7) // 8, 3))()
        if self._layout is not None:
            try:
                self._layout.pack_into(words, 0, *values)
            except struct.error:
                raise self._misfit(values) from None
            return library.write_words(self._pointer, words, self._length)
        tails, keep = [], []
        for (name, shape, letter, count, at), value in zip(self._puts, values):
            if shape == 0:
                try:
                    struct.pack_into(letter, words, at, value)
                except struct.error:
                    raise self._misfit(values) from None
            elif shape == 1 and not letter:
                _put_text(words, at, count, value)
            elif shape == 1:
                # Fewer are followed by zeros; more would lie in the next field.
                if len(value) > count:
                    raise ValueError(f"{self.system}:{self.name}: {name} is {self.fields[name]}, not of {len(value)}")
                struct.pack_into(f"{len(value)}{letter}", words, at, *value)
            else:
                data = _bytes_of(value, letter)
                # Kept until the event is written.
                keep.append(data)
                tails.append(c.Bytes(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data)))
        if not self._dynamic:
            return library.write_words(self._pointer, words, self._length)
        return library.write_tails(self._pointer, words, (c.Bytes * len(tails))(*tails))

    def _misfit(self, values: Tuple[Any, ...]) -> ValueError:
        """Says which value of a number does not fit."""
        for (name, shape, letter, *_), value in zip(self._puts, values):
            if shape == 0:
                try:
                    struct.pack(letter, value)
                except struct.error:
                    return ValueError(f"{self.system}:{self.name}: {name} is {self.fields[name]}, not {value!r}")
        raise AssertionError("all of them fit")


def _put_text(words: Any, at: int, size: int, value: str) -> None:
    data = value.encode()[: size - 1].decode(errors="ignore").encode()
    struct.pack_into(f"{len(data)}s", words, at, data)


def _bytes_of(value: Union[str, bytes, Any], letter: str) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    return struct.pack(f"{len(value)}{letter}", *value)


_Function = TypeVar("_Function", bound=Callable[..., Any])


class Span:
    """A pair of events, NAME_begin with fields and NAME_end: a slice on the time lines of Perfetto and Chrome.

    >>> request = Span("shop", "request", user="u32")
    >>> with request(7):  # doctest: +SKIP
    ...     pass
    """

    def __init__(self, system: str, name: str, /, **fields: Type) -> None:
        self.begin = Event(system, f"{name}_begin", **fields)
        self.end = Event(system, f"{name}_end")

    @contextmanager
    def __call__(self, *values: Any, **named: Any) -> Iterator[None]:
        begun = self.begin(*values, **named)
        try:
            yield
        finally:
            if begun:
                self.end()


def traced(system: str, name: Optional[str] = None) -> Callable[[_Function], _Function]:
    """Makes each call of a function a span, named as the function where nothing is said."""

    def decorate(function: _Function) -> _Function:
        span = Span(system, name or function.__name__)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with span():
                return function(*args, **kwargs)

        return wrapper  # type: ignore[return-value]

    return decorate


def init() -> None:
    """Traces to the host that RINGTAP_SOCKET names, else to the daemon, else into memory of the process's own."""
    check(library.init())


def attach(socket: Union[str, "os.PathLike[str]"], *, early: int = 0) -> None:
    """Traces to the host whose socket this is; `early` is one of `enum ringtap_early`."""
    check(library.attach(os.fsencode(socket), early))


def detach() -> None:
    """Ends that: all events are off."""
    check(library.detach())


def mark(text: str) -> bool:
    """Writes a text that needs no declaration; whether it was written."""
    data = text.encode()
    return library.print_n(data, len(data)) == c.OK
