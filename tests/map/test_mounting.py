"""What mounts show is seen in a directory while a block lasts, and is gone after it.

Method: binds are looked at as they are; overlays of a few directories are mounted, changed,
left in use, and failed in every way that does not need a broken kernel, and the table of
mounts is read before and after.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.local_kinds import require_overlays

from blobmap.contracts import Mount
from blobmap.errors import DataLoss, FailedPrecondition, NotImplementedHere
from blobmap.local import mounted
from blobmap.local.mounting import held


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory in which this test's mounts are made."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setenv("TMPDIR", str(place))
    return place


def left(place: Path) -> list[str]:
    """Return what is mounted in this test's own directory, and what is left in `place`."""
    table = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    mounts = [line for line in table if str(place.parent) in line]
    return mounts + list(map(str, place.iterdir()))


@pytest.fixture
def overlay(tmp_path: Path, place: Path) -> Mount:
    """An overlay of an empty upper directory over one with a file."""
    assert left(place) == []
    require_overlays(tmp_path)
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "file").write_text("lower")
    options = [f"{name}dir={tmp_path / name}" for name in ("lower", "upper", "work")]
    return Mount("overlay", "overlay", options=tuple(options))


def test_a_bind_is_its_source(tmp_path: Path) -> None:
    for options in (("rbind", "rw"), ("rbind", "ro")):
        for show in (mounted, held):
            with show([Mount("bind", str(tmp_path), options=options)]) as path:
                assert path == str(tmp_path)


def test_other_mounts_are_refused(tmp_path: Path) -> None:
    bind = Mount("bind", str(tmp_path))
    for mounts in ([], [bind, bind], [Mount("ext4", "/dev/null")]):
        with pytest.raises(NotImplementedHere, match="mount them yourself"), mounted(mounts):
            pass


def test_an_overlay_is_there_while_the_block_lasts(
    overlay: Mount, place: Path, tmp_path: Path
) -> None:
    with mounted([overlay]) as path:
        assert Path(path, "file").read_text() == "lower"
        Path(path, "file").write_text("changed")
        assert Path(path).parent == place
        assert Path(path).stat().st_dev != tmp_path.stat().st_dev

    assert left(place) == []
    assert not Path(path).exists()
    assert (tmp_path / "upper" / "file").read_text() == "changed"
    assert (tmp_path / "lower" / "file").read_text() == "lower"


def test_an_error_in_the_block_unmounts_it(overlay: Mount, place: Path) -> None:
    with pytest.raises(KeyboardInterrupt), mounted([overlay]):
        raise KeyboardInterrupt

    assert left(place) == []


def test_a_read_only_one_refuses_changes(overlay: Mount) -> None:
    ro = Mount("overlay", "overlay", options=(*overlay.options, "ro"))
    with mounted([overlay], read_only=True) as path, pytest.raises(OSError, match="Read-only"):
        Path(path, "new").touch()
    with mounted([ro]) as path, pytest.raises(OSError, match="Read-only"):
        Path(path, "new").touch()


def test_one_in_use_goes_out_of_sight_and_then_goes(overlay: Mount, place: Path) -> None:
    with ExitStack() as stack:
        with mounted([overlay]) as path:
            file = stack.enter_context(Path(path, "file").open(encoding="utf-8"))

        assert left(place) == []
        assert not Path(path).exists()
        assert file.read() == "lower"


def test_one_that_is_held_has_no_path_that_others_see(
    overlay: Mount, place: Path, tmp_path: Path
) -> None:
    with held([overlay]) as path:
        assert left(place) == []
        assert Path(path, "file").read_text() == "lower"
        Path(path, "new").write_text("new")

    assert not Path(path).exists()
    assert (tmp_path / "upper" / "new").read_text() == "new"


def test_a_process_that_is_killed_leaves_no_mount_that_it_held(
    overlay: Mount, place: Path, tmp_path: Path
) -> None:
    program = f"""
import sys
from blobmap.contracts import Mount
from blobmap.local.mounting import held
with held([{overlay!r}]) as path:
    print("held", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        process.send_signal(signal.SIGKILL)

    assert process.returncode == -signal.SIGKILL
    assert left(place) == []
    # The file system is not in use any more, so that its work directory may be used again.
    with mounted([overlay]) as path:
        assert [entry.name for entry in Path(path).iterdir()] == ["file"]


def test_no_thread_is_moved_to_another_directory(overlay: Mount) -> None:
    here, there = Path.cwd(), []
    with mounted([overlay]):
        thread = threading.Thread(target=lambda: there.append(Path.cwd()))
        thread.start()
        thread.join()

    assert [Path.cwd(), *there] == [here, here]


def test_a_directory_that_is_gone_is_data_loss(
    overlay: Mount, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "lower" / "file").unlink()
    (tmp_path / "lower").rmdir()
    for show in (mounted, held):
        with pytest.raises(DataLoss, match=f"{tmp_path / 'lower'}: gone"), show([overlay]):
            pass
    (tmp_path / "upper").rmdir()
    with pytest.raises(DataLoss, match=f"{tmp_path / 'upper'}: gone"), held([overlay]):
        pass

    assert left(place) == []


def test_options_that_the_kernel_refuses_are_told(overlay: Mount) -> None:
    wrong = Mount("overlay", "overlay", options=(*overlay.options, "nonsense=1"))
    with pytest.raises(FailedPrecondition, match="Invalid argument"), mounted([wrong]):
        pass


def test_more_options_than_the_kernel_takes_are_told(overlay: Mount, tmp_path: Path) -> None:
    parents = ":".join(str(tmp_path / f"parent-{number}") for number in range(500))
    more = Mount("overlay", "overlay", options=(f"lowerdir={parents}",))
    with pytest.raises(FailedPrecondition, match="too many parents"), mounted([more]):
        pass
