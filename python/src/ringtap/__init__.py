"""Trace events into shared memory, and live buffers and trace files as Arrow tables.

>>> import ringtap
>>> served = ringtap.Event("shop", "served", status="u16", took_ns="u64", path="string")
>>> ringtap.init()  # doctest: +SKIP
>>> served(200, 81250, "/cart")  # doctest: +SKIP
"""

from ._library import Error
from .events import Event, Span, attach, detach, init, mark, traced
from .reading import Host, Lost, Reader, Record, Stats, open_trace, read_arrow, read_pandas

__all__ = [
    "Error",
    "Event",
    "Host",
    "Lost",
    "Reader",
    "Record",
    "Span",
    "Stats",
    "attach",
    "detach",
    "init",
    "mark",
    "open_trace",
    "read_arrow",
    "read_pandas",
    "traced",
]
__version__ = "0.1.0"
