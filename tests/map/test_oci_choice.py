"""The right image of a layout is imported, under the right name.

Method: layouts of several images, or of one for several platforms, on a pretended machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import images
from support.images import LayoutBuilder, digest_of
from support.importing import (
    BASE,
    SECOND,
    THIRD,
)

from blobmap import BlobSnapshotter, InvalidArgument, NotFound
from blobmap._oci import platforms
from blobmap._oci.platforms import Platform
from blobmap.oci import import_layout


def test_names_choose_images_and_a_nameless_one_is_called_by_its_digest(
    target: BlobSnapshotter, tmp_path: Path
) -> None:
    builder = LayoutBuilder()
    for name, data in (("one", BASE), ("two", SECOND), (None, THIRD)):
        builder.put(builder.image(data, name=name))
    path = builder.write(tmp_path / "layout")

    assert [image.name for image in import_layout(target, path, ref="two")] == ["two"]
    every = [image.name for image in import_layout(target, path)]
    assert every == ["one", "two", builder.manifests[2]["digest"]]
    with pytest.raises(NotFound, match="no image is named 'three'; there are: one, two"):
        import_layout(target, path, ref="three")


def test_a_lone_nameless_image_takes_the_name_given(
    target: BlobSnapshotter, tmp_path: Path
) -> None:
    builder = LayoutBuilder()
    builder.put(builder.image(BASE, name=None))

    assert (
        import_layout(target, builder.write(tmp_path / "layout"), ref="mine")[0].name == "mine"
    )


def nested(
    builder: LayoutBuilder, *entries: tuple[bytes, dict[str, str]], name: str = "multi"
) -> dict[str, Any]:
    """An index of an image for several platforms."""
    manifests = [
        {**builder.image(data, name=None), "platform": platform} for data, platform in entries
    ]
    document = {"schemaVersion": 2, "manifests": manifests}
    return builder.add_json(document, images.INDEX, annotations={images.REF_NAME: name})


AMD64 = {"os": "linux", "architecture": "amd64"}
ARM64 = {"os": "linux", "architecture": "arm64", "variant": "v8"}
ATTESTATION = {"os": "unknown", "architecture": "unknown"}


@pytest.mark.parametrize(("machine", "data"), [("x86_64", BASE), ("aarch64", SECOND)])
def test_the_platform_of_this_machine_is_chosen(
    target: BlobSnapshotter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    machine: str,
    data: bytes,
) -> None:
    monkeypatch.setattr(platforms.platform, "machine", lambda: machine)
    builder = LayoutBuilder()
    builder.put(nested(builder, (THIRD, ATTESTATION), (BASE, AMD64), (SECOND, ARM64)))

    (image,) = import_layout(target, builder.write(tmp_path / "layout"))

    assert image.name == "multi"
    assert image.snapshots == (digest_of(data),)


def test_no_platform_that_fits_is_an_error_that_lists_them(
    target: BlobSnapshotter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platforms.platform, "machine", lambda: "s390x")
    builder = LayoutBuilder()
    builder.put(nested(builder, (BASE, AMD64), (SECOND, ARM64), (THIRD, ATTESTATION)))

    with pytest.raises(
        NotFound, match=r"no image for linux/s390x; there are: linux/amd64, linux/arm64/v8$"
    ):
        import_layout(target, builder.write(tmp_path / "layout"))


def test_the_only_image_is_taken_whatever_its_platform(
    target: BlobSnapshotter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platforms.platform, "machine", lambda: "s390x")
    builder = LayoutBuilder()
    builder.put(nested(builder, (BASE, AMD64), (THIRD, ATTESTATION)))

    assert len(import_layout(target, builder.write(tmp_path / "layout"))) == 1


def test_indexes_may_be_nested_but_not_without_end(
    target: BlobSnapshotter, tmp_path: Path
) -> None:
    builder = LayoutBuilder()
    entry = nested(builder, (BASE, AMD64))
    for depth in range(6):
        builder.manifests = [entry]
        path = builder.write(tmp_path / f"layout{depth}")
        if depth < 4:
            assert len(import_layout(target, path)) == 1
        else:
            with pytest.raises(InvalidArgument, match="nested more than 4 deep"):
                import_layout(target, path)
        document = {"schemaVersion": 2, "manifests": [entry] * 50}
        entry = builder.add_json(document, images.INDEX, annotations={images.REF_NAME: "x"})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Platform("linux", "arm64"), Platform("linux", "arm64", "v8"), True),
        (Platform("linux", "arm", "v7"), Platform("linux", "arm"), True),
        (Platform("linux", "arm", "v6"), Platform("linux", "arm"), False),
        (Platform("linux", "amd64"), Platform("linux", "amd64", "v3"), False),
        (Platform("linux", "amd64"), Platform("windows", "amd64"), False),
    ],
)
def test_a_usual_variant_is_the_same_as_none(
    one: Platform, other: Platform, *, same: bool
) -> None:
    assert one.matches(other) == other.matches(one) == same
