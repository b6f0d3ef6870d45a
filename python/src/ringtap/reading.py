"""Hosts, live buffers and trace files, as records or as Arrow tables."""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from ctypes import addressof, byref, c_double, c_int64, c_uint64, string_at
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Iterator, List, Optional, Union

from . import _library as c
from ._library import check, library

if TYPE_CHECKING:
    import pandas
    import pyarrow

_Path = Union[str, "os.PathLike[str]"]
_ROWS = 65536
#: Of `enum ringtap_kind`.
_RECORD, _LOST = 1, 2
#: Seconds after which a wait looks whether the reader was closed meanwhile, or Ctrl-C pressed.
_LOOK = 0.2


@dataclass(frozen=True)
class Stats:
    """A host's counters over all CPUs: `written` = `read` + `unread` + `overwritten`."""

    written: int
    unread: int
    overwritten: int
    read: int
    dropped: int
    refused: int


@dataclass(frozen=True)
class Record:
    """An event."""

    ns: int
    cpu: int
    pid: int
    event: Optional[str]
    text: str
    payload: bytes = field(repr=False)


@dataclass(frozen=True)
class Lost:
    """Events that stood here and were overwritten; `count` is None where it is not known."""

    cpu: int
    count: Optional[int]


#: Readers, and hosts, for `_let_go`.
_readers: "weakref.WeakSet[Reader]" = weakref.WeakSet()
_hosts: "weakref.WeakSet[Host]" = weakref.WeakSet()


def _let_go() -> None:
    """In a forked child: its parent's readers are not mapped there, and its locks are those of threads that it has not."""
    for reader in list(_readers):
        reader._handle, reader._lock = None, threading.RLock()
    for host in list(_hosts):
        host._lock = threading.RLock()


os.register_at_fork(after_in_child=_let_go)


class Reader:
    """Records of a live buffer or a file, in the order of their time. A context manager.

    Threads may share it; each item comes to one of them. In a forked child it is closed.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        # ctypes lets other threads run during a call, and the library takes one at a time.
        self._lock = threading.RLock()
        _readers.add(self)

    def close(self) -> None:
        """Lets go of it."""
        with self._lock:
            if self._handle is not None:
                library.reader_free(self._handle)
                self._handle = None

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _open(self) -> Any:
        if self._handle is None:
            raise ValueError("the reader is closed")
        return self._handle

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Waits for more, `timeout` seconds at most; whether there is more. A file's reader never waits."""
        now = time.monotonic()
        end = math.inf if timeout is None else now + timeout
        while True:
            left = max(min(end - now, _LOOK), 0)
            with self._lock:
                if check(library.reader_wait(self._open(), math.ceil(left * 1000))) == c.OK:
                    return True
            begun, now = now, time.monotonic()
            # It has waited in vain, or was sent away before.
            if now >= end or now - begun < left:
                return False

    def __iter__(self) -> Iterator[Union[Record, Lost]]:
        """What there is by now."""
        while (item := self._next()) is not None:
            yield item

    def _next(self) -> Union[Record, Lost, None]:
        item = c.Item()
        with self._lock:
            if check(library.reader_next(self._open(), byref(item))) != c.OK:
                return None
            if item.kind == _LOST and item.lost != 2**64 - 1:
                return Lost(item.cpu, item.lost)
            if item.kind != _RECORD:
                return Lost(item.cpu, None)
            name = library.reader_event(self._handle)
            text = c.text_of(lambda to, size: library.reader_print(self._handle, to, size))
            payload = string_at(item.payload, item.length)
        return Record(item.ns, item.cpu, item.pid, name.decode() if name else None, text, payload)

    def field(self, name: str) -> Union[int, float, bytes, None]:
        """A field of the record that came last."""
        with self._lock:
            return self._field(name)

    def _field(self, name: str) -> Union[int, float, bytes, None]:
        number, natural, real, data = c_int64(), c_uint64(), c_double(), c.Bytes()
        for function, value in (
            (library.reader_uint, natural),
            (library.reader_int, number),
            (library.reader_double, real),
        ):
            if check(function(self._open(), name.encode(), byref(value))) == c.OK:
                return value.value
        if check(library.reader_bytes(self._open(), name.encode(), byref(data))) == c.OK:
            return string_at(data.start, data.length) if data.length else b""
        return None

    def events(self) -> List[str]:
        """The names of all events that are declared, `SYSTEM:NAME`."""
        with self._lock:
            return c.text_of(lambda to, size: library.reader_events(self._open(), to, size)).splitlines()

    def batches(self, event: Optional[str] = None, rows: int = _ROWS) -> Iterator["pyarrow.RecordBatch"]:
        """What there is by now, as Arrow's batches: of one event with its fields as columns, of all with their texts."""
        import pyarrow

        name = event.encode() if event is not None else None
        while True:
            # The interface's two structures, which Arrow takes over.
            schema, array = (c_uint64 * 9)(), (c_uint64 * 10)()
            schema_at, array_at = addressof(schema), addressof(array)
            with self._lock:
                if check(library.reader_batch(self._open(), name, rows, schema_at, array_at)) != c.OK:
                    return
            yield pyarrow.RecordBatch._import_from_c(array_at, schema_at)

    def to_arrow(self, event: Optional[str] = None) -> "pyarrow.Table":
        """What there is by now, as one table."""
        import pyarrow

        batches = list(self.batches(event))
        return pyarrow.Table.from_batches(batches) if batches else pyarrow.table({})

    def to_pandas(self, event: Optional[str] = None) -> "pandas.DataFrame":
        """What there is by now, as a frame whose index is the time."""
        table = self.to_arrow(event)
        frame = table.to_pandas()
        return frame.set_index("time_ns") if "time_ns" in frame else frame


class Host:
    """Trace buffers, in this process or another. A context manager."""

    def __init__(self, *, subbuf_size: int = 4096, ring_subbufs: int = 354, discard: bool = False) -> None:
        """Makes one in this process."""
        self._begin()
        config = c.Config(subbuf_size, ring_subbufs, discard, 0, 0, 0, None, None)
        self._handle = c.handle(lambda made: library.host_new(byref(config), made))

    def _begin(self) -> None:
        self._handle: Any = None
        # As a reader's: a call in another thread ends before the host is freed.
        self._lock = threading.RLock()
        _hosts.add(self)

    @classmethod
    def connect(cls, socket: Optional[_Path] = None) -> "Host":
        """Connects to one of another process: the one of RINGTAP_SOCKET where nothing is said."""
        host = cls.__new__(cls)
        host._begin()
        path = os.fsencode(socket) if socket is not None else None
        host._handle = c.handle(lambda made: library.host_connect(path, made))
        return host

    def close(self) -> None:
        """Lets go of it."""
        with self._lock:
            if self._handle is not None:
                library.host_free(self._handle)
                self._handle = None

    def __enter__(self) -> "Host":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def trace(self) -> None:
        """Has this process's events go here."""
        with self._lock:
            check(library.trace_to(self._handle))

    def serve(self, socket: _Path) -> None:
        """Lets others attach."""
        with self._lock:
            check(library.host_serve(self._handle, os.fsencode(socket)))

    def set_recording(self, on: bool) -> None:
        """Switches recording, for all its writers."""
        with self._lock:
            check(library.host_set_recording(self._handle, on))

    def stats(self) -> Stats:
        """Its counters."""
        stats = c.Stats()
        with self._lock:
            check(library.host_stats(self._handle, byref(stats)))
        return Stats(*(getattr(stats, name) for name, _ in stats._fields_))

    def reader(self, cpu: int = -1) -> Reader:
        """The consuming reader of a CPU's buffer, or of all."""
        with self._lock:
            return Reader(c.handle(lambda made: library.reader_new(self._handle, cpu, made)))

    def cursor(self, cpu: int = -1, *, newest: bool = False) -> Reader:
        """A reader that consumes nothing and that writers never notice."""
        with self._lock:
            return Reader(c.handle(lambda made: library.cursor_new(self._handle, cpu, 2 if newest else 0, made)))


def open_trace(path: _Path) -> Reader:
    """A trace.dat, of `ringtap record` or `trace-cmd record`."""
    return Reader(c.handle(lambda made: library.file_open(os.fsencode(path), made)))


def read_arrow(path: _Path, event: Optional[str] = None) -> "pyarrow.Table":
    """A trace.dat as a table: of one event with its fields as columns, of all with their texts."""
    with open_trace(path) as reader:
        return reader.to_arrow(event)


def read_pandas(path: _Path, event: Optional[str] = None) -> "pandas.DataFrame":
    """As `read_arrow`, as a frame."""
    with open_trace(path) as reader:
        return reader.to_pandas(event)
