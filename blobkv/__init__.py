r"""An ordered, transactional key-value store in pure Python, for Linux and macOS.

>>> import blobkv, tempfile
>>> directory = tempfile.mkdtemp()
>>> store = blobkv.open(directory)
>>> with store.update() as txn:                    # durable when the block ends
...     txn[b"fruit/apple"] = b"red"
...     txn[b"fruit/banana"] = b"yellow"
...     txn.bucket("stock")[b"apple"] = b"12"      # a bucket needs no creation
>>> with store.view() as txn:                      # one state, whatever is written meanwhile
...     list(txn.items(prefix=b"fruit/"))
...     txn.bucket("stock").get(b"pear", b"0")
[(b'fruit/apple', b'red'), (b'fruit/banana', b'yellow')]
b'0'
>>> def take(txn):                                 # concurrent callers share one commit
...     stock = txn.bucket("stock")
...     stock[b"apple"] = b"%d" % (int(stock[b"apple"]) - 1)
...     return stock[b"apple"]
>>> store.batch(take)
b'11'
>>> store.close()
"""

from __future__ import annotations

from blobkv._engine.report import Problem, Report
from blobkv._engine.salvage import Salvage
from blobkv.bucket import Bucket
from blobkv.cursor import Cursor
from blobkv.errors import (
    BlobKVError,
    ClosedError,
    CorruptionError,
    InterruptedCommit,
    LimitError,
    LockedError,
    PoisonedError,
    ReadOnlyError,
    UsageError,
)
from blobkv.keys import pack, prefix_end, unpack
from blobkv.opening import open, salvage  # noqa: A004  # As in `dbm.open`.
from blobkv.stats import Stats
from blobkv.store import Store
from blobkv.transaction import Transaction

__all__ = [
    "BlobKVError",
    "Bucket",
    "ClosedError",
    "CorruptionError",
    "Cursor",
    "InterruptedCommit",
    "LimitError",
    "LockedError",
    "PoisonedError",
    "Problem",
    "ReadOnlyError",
    "Report",
    "Salvage",
    "Stats",
    "Store",
    "Transaction",
    "UsageError",
    "open",
    "pack",
    "prefix_end",
    "salvage",
    "unpack",
]
__version__ = "0.1.0"
