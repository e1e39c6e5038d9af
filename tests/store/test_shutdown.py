"""A program may end in the middle of anything: nothing is lost, nothing is said, none hangs.

Method: a process of its own leaves a store in some state and comes to its end in some way. Its
exit status and what it printed are looked at, and then the store.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import blobkv

pytestmark = pytest.mark.slow

TIMEOUT_SECONDS = 60.0

PREPARED = """
import atexit, gc, sys, threading, time, blobkv

store = blobkv.open(sys.argv[1], memtable_size=4096)

def put(key, *, durable=True, size=10):
    with store.update(durable=durable) as txn:
        txn.put(key, bytes(size))

for i in range(30):
    put(b"%02d" % i, size=300)
"""

# What is open, or under way, as the end comes.
LEFT = {
    "nothing": "",
    "a view": "view = store.view()",
    "an update": "txn = store.update(); txn.put(b'never', b''); txn.clear(b'0')",
    "an update in its block": """
block = store.update()
block.__enter__().put(b'never', b'')
""",
    "a bucket of an update": "txn = store.update(); txn.bucket('b')[b'never'] = b''",
    "a cursor": "cursor = store.view().cursor(); cursor.first()",
    "a cursor of an update": """
txn = store.update()
cursor = txn.cursor()
cursor.first(); cursor.delete()
""",
    "an iteration": "pairs = iter(store.view().items()); next(pairs)",
    "a generator with a view": """
def walk():
    with store.view() as txn:
        yield from txn.items()
walking = walk(); next(walking)
""",
    "a generator with an update": """
def walk():
    with store.update() as txn:
        txn.put(b'never', b'')
        yield
        raise SystemError('never came here')
walking = walk(); next(walking)
""",
    "commits that need not be durable": "put(b'quick', durable=False)",
    "flushes and merges": """
def work():
    for i in range(400):
        put(b'w%03d' % i, durable=False, size=500)
work()
""",
    "a merge in a thread": """
def run():
    store.compact()
thread = threading.Thread(target=run); thread.start()
""",
    "threads that write": """
def run(i):
    for j in range(100):
        put(b't%d/%03d' % (i, j), size=200)
for i in range(3):
    threading.Thread(target=run, args=(i,)).start()
""",
    "daemons that write": """
acknowledged = open(sys.argv[1] + ".acknowledged", "ab", buffering=0)
enough = threading.Barrier(4)
def run(i):
    for j in range(1_000_000):
        store.batch(lambda txn: txn.put(b'd%d' % i, b'%d' % j))
        acknowledged.write(b'd%d %d\\n' % (i, j))
        if j == 40: enough.wait()
for i in range(3):
    threading.Thread(target=run, args=(i,), daemon=True).start()
enough.wait()
""",
    "a child at work": """
from blobkv._engine import builder
builder.CHILD_SIZE_MIN = 0
for i in range(300):
    put(b'w%03d' % i, durable=False, size=500)
threading.Thread(target=store.compact, daemon=True).start()
""",
    "a reader beside": """
reader = blobkv.open(sys.argv[1], read_only=True)
view = reader.view(); cursor = view.cursor(); cursor.last()
""",
    "a cycle": """
class Holder: pass
holder = Holder(); holder.self = holder; holder.store = store; holder.txn = store.view()
del store, holder
""",
    "a store to be closed at exit": "atexit.register(store.close); txn = store.view()",
    "a use of the store at exit": """
def last():
    with store.update() as txn:
        txn.put(b'at exit', b'')
    for i in range(50):
        with store.update() as txn:
            txn.put(b'at exit %d' % i, bytes(500))
atexit.register(last)
""",
    "a finalizer that closes": """
class Owner:
    def __init__(self, store): self.store = store
    def __del__(self):
        # The interpreter may have finalized the store's files before this.
        try: self.store.close()
        except blobkv.PoisonedError: pass
owner = Owner(store)
""",
    "a closed store": "store.close()",
}

# How the program ends: the statement, and the status that it is to have.
ENDS = {
    "the end of the script": ("", 0),
    "sys.exit, with garbage left": ("gc.disable(); sys.exit(3)", 3),
}


def run(path: Path, *parts: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "\n".join(parts), str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )


def keys(path: Path) -> list[bytes]:
    with blobkv.open(path, create=False) as store, store.view() as txn:
        assert store.verify().ok
        assert txn.buckets() == []
        return list(txn)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("left", LEFT)
def test_a_program_ends_with_its_own_status_and_loses_nothing(
    tmp_path: Path, left: str, end: str
) -> None:
    statement, status = ENDS[end]

    done = run(tmp_path / "db", PREPARED, LEFT[left], statement)

    assert (done.returncode, done.stdout) == (status, "")
    if left == "a finalizer that closes" and done.stderr:
        # Garbage is finalized in any order: the log's file may have been closed before.
        assert "PoisonedError" in done.stderr
    else:
        assert done.stderr == ""
    found = keys(tmp_path / "db")
    assert [b"%02d" % i for i in range(30)] == [
        key for key in found if len(key) == 2 and key.isdigit()
    ]
    assert b"never" not in found
    assert (b"quick" in found) == (left == "commits that need not be durable")
    if left == "flushes and merges":
        assert len([key for key in found if key.startswith(b"w")]) == 400
    if left == "a child at work":
        assert len([key for key in found if key.startswith(b"w")]) == 300
    if left == "threads that write":
        assert len([key for key in found if key.startswith(b"t")]) == 300
    if left == "a use of the store at exit":
        assert len([key for key in found if key.startswith(b"at exit")]) == 51


def test_what_daemons_had_acknowledged_at_the_end_is_there(tmp_path: Path) -> None:
    done = run(tmp_path / "db", PREPARED, LEFT["daemons that write"])

    assert (done.returncode, done.stderr) == (0, "")
    lines = (tmp_path / "db.acknowledged").read_bytes().splitlines()
    last = dict(line.split() for line in lines)
    assert len(last) == 3
    with blobkv.open(tmp_path / "db") as store, store.view() as txn:
        for key, number in last.items():
            assert int(txn[key]) - int(number) in (0, 1)


@pytest.mark.parametrize("left", ["a view", "an update", "flushes and merges"])
def test_an_error_that_ends_a_program_is_all_that_is_said(tmp_path: Path, left: str) -> None:
    done = run(tmp_path / "db", PREPARED, LEFT[left], "raise RuntimeError('its own')")

    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.endswith("RuntimeError: its own\n")
    assert len(keys(tmp_path / "db")) >= 30


REOPENED = """
del store
def opened():
    # Its work in the background may go on for a while; after that it is garbage.
    for _ in range(3000):
        gc.collect()
        try:
            return blobkv.open(sys.argv[1])
        except blobkv.LockedError:
            time.sleep(0.01)
"""
DROPPED = """
store = opened()
with store.view() as txn:
    assert len(txn) == {count}, len(txn)
assert store.verify().ok
put(b"later")
"""
KEPT_COUNTS = {
    "nothing": 30,
    "a cycle": 30,
    "commits that need not be durable": 31,
    "flushes and merges": 430,
}


@pytest.mark.parametrize("left", KEPT_COUNTS)
def test_a_store_that_was_dropped_is_opened_again_in_the_same_process(
    tmp_path: Path, left: str
) -> None:
    # In the cycle it was dropped already.
    reopened = REOPENED.replace("del store", "") if left == "a cycle" else REOPENED
    dropped = DROPPED.format(count=KEPT_COUNTS[left])

    done = run(tmp_path / "db", PREPARED, LEFT[left], reopened, dropped)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(keys(tmp_path / "db")) == KEPT_COUNTS[left] + 1


@pytest.mark.parametrize("held", ["view = store.view()", "pairs = iter(store.view().items())"])
def test_a_view_goes_on_when_its_store_was_dropped(tmp_path: Path, held: str) -> None:
    """It holds what it reads, and nothing that keeps others out."""
    rest = """
other = opened()
with other.update() as txn:
    assert txn.clear() == 30
other.compact()
other.close()
found = view if 'view' in globals() else pairs
assert len(list(found)) == 30
"""
    done = run(tmp_path / "db", PREPARED, held, REOPENED, rest)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
