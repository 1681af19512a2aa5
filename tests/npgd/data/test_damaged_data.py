"""Damaged files: every one is read, skipped with a reason, or refused by name; none ends a process.

Each case is a small sound file, damaged as its seed says. Cases run in processes of their own: one
that a decoder kills, or that does not come to an end, is a failure here and not the end of pytest.
"""

import concurrent.futures
import functools
import gzip
import io
import multiprocessing
import os
import signal
import struct
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from npgd import data

SHAPE = (3, 16, 16)
SECONDS = 60


def noise(rng, *shape):
    """Smooth enough for every compression to find something to do."""
    return np.repeat(rng.integers(0, 256, (shape[0], 4, *shape[2:]), np.uint8), shape[1] // 4, 1)


def picture(seed, kind):
    """A sound picture, encoded."""
    rng = np.random.default_rng(seed)
    grey, colours = noise(rng, 16, 16), noise(rng, 16, 16, 3)
    alpha = np.dstack([colours, noise(rng, 16, 16)])
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010F: "a maker", 0x011A: 72.0})
    drawn, options = {
        "png": (colours, {}),
        "png16": (grey.astype(np.uint16) * 257, {}),
        "pnga": (alpha, {"exif": exif}),
        "pngp": (colours, {}),
        "jpg": (colours, {"exif": exif, "quality": 90}),
        "jpgp": (grey, {"progressive": True}),
        "gif": (grey, {}),
        "bmp": (colours, {}),
        "tif": (colours, {}),
        "tif16": (grey.astype(np.uint16) * 257, {"compression": "tiff_lzw"}),
        "tifz": (colours, {"compression": "tiff_adobe_deflate", "exif": exif}),
        "tifj": (colours, {"compression": "jpeg"}),
        "webp": (alpha, {"exif": exif}),
    }[kind]
    image = Image.fromarray(drawn)
    if kind == "pngp":
        image = image.quantize(7)
        options = {"transparency": 3}
    buffer = io.BytesIO()
    image.save(buffer, FORMATS[kind], **options)
    return buffer.getvalue()


FORMATS = {
    **{kind: "PNG" for kind in ("png", "png16", "pnga", "pngp")},
    **{kind: "JPEG" for kind in ("jpg", "jpgp")},
    **{kind: "TIFF" for kind in ("tif", "tif16", "tifz", "tifj")},
    **{kind: kind.upper() for kind in ("gif", "bmp", "webp")},
}
SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "TIFF": ".tif", "GIF": ".gif", "BMP": ".bmp"}


def zipped(seed):
    """A sound zip, in one of four compressions."""
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", methods[seed % 4]) as archive:
        for i in range(3):
            archive.writestr(f"train/{i}.png", picture(i, "png"))
        archive.writestr("readme.txt", "three pictures")
    return buffer.getvalue()


def idx():
    return (
        struct.pack(">4B3I", 0, 0, 8, 3, 5, 16, 16)
        + noise(np.random.default_rng(0), 80, 16).tobytes()
    )


@functools.cache
def lmdb_file(large):
    """A sound LMDB of a few pictures, some on pages of their own, and of many small values."""
    lmdb = pytest.importorskip("lmdb", reason="the package lmdb is not installed")
    with tempfile.TemporaryDirectory() as folder:
        with lmdb.open(folder, map_size=2**24) as env, env.begin(write=True) as write:
            for i in range(4):
                write.put(bytes([i]) * 9, picture(i, "bmp" if i % 2 else "png") + bytes(5000 * i))
            for i in range(400 if large else 0):
                write.put(b"many" + i.to_bytes(2, "big"), bytes(30))
        return Path(folder, "data.mdb").read_bytes()


def damaged(content, rng):
    """`content` with one to three of eight damages."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, len(content) + 1))
        if rng.integers(2):  # what describes a file lies at its ends
            at = (
                min(at, int(rng.integers(0, 200)))
                if rng.integers(2)
                else max(at, len(content) - 200)
            )
        length = int(rng.choice([1, 2, 4, 8, 40, 400]))
        match rng.integers(8):
            case 0:
                del content[at:]
            case 1:
                del content[at : at + length]
            case 2:
                content[at:at] = rng.bytes(length)
            case 3:
                content[at : at + length] = rng.bytes(length)[: len(content) - at]
            case 4:
                content[at : at + length] = bytes([rng.choice([0, 255])]) * len(
                    content[at : at + length]
                )
            case 5:
                content[at:at] = content[at : at + length]
            case 6:
                number = int(rng.choice([0, 1, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**63 - 1]))
                field = number.to_bytes(8, rng.choice(["little", "big"]))[
                    : int(rng.choice([2, 4, 8]))
                ]
                content[at : at + len(field)] = field[: len(content) - at]
            case _:
                for place in rng.integers(0, max(1, len(content)), 3):
                    if content:
                        content[place] ^= 1 << int(rng.integers(8))
    return bytes(content)


class Hangs(BaseException):
    """A case that takes too long; no `except Exception` keeps it from its test."""


def outcome(kind, seed):
    """ "read", "skipped" or "refused", or what is wrong with how a case ended."""

    def too_long(*_):
        raise Hangs

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("error")
            os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
            return CASES[kind](Path(folder), np.random.default_rng([seed, *kind.encode()]), seed)
    except Hangs:
        return f"{kind} {seed}: does not come to an end"
    except BaseException as error:
        return f"{kind} {seed}: {type(error).__name__}: {error}"
    finally:
        signal.alarm(0)


def judged(path, found_of, all_names=None, among=None):
    """How reading a path ends: a sound result whose every file is accounted for, or a sentence."""
    try:
        found = found_of(path)
    except ValueError as error:
        told = str(error)
        assert str(path.name) in told or str(path.parent) in told, f"names no file: {told}"
        assert "must" in told and "\n" not in told and told.isprintable(), told
        return "refused"
    assert found.images.dtype == torch.uint8 and found.images.shape == (len(found.names), *SHAPE)
    assert all(skip.why and skip.why.isprintable() for skip in found.skipped)
    if all_names is not None:
        assert sorted(found.names + [skip.name for skip in found.skipped]) == all_names
    if among is not None:
        assert all(any(torch.equal(image, one) for one in among) for image in found.images)
    return "skipped" if found.skipped else "read"


def one_picture(folder, rng, seed):
    kind = list(FORMATS)[seed % len(FORMATS)]
    name = f"a{SUFFIXES.get(FORMATS[kind], '.webp')}"
    place = folder / "pictures"
    place.mkdir()
    (place / name).write_bytes(damaged(picture(seed, kind), rng))
    (place / "sound.png").write_bytes(picture(0, "png"))
    return judged(place, lambda p: data.read_pictures(p, SHAPE, cache=False), [name, "sound.png"])


def one_zip(folder, rng, seed):
    (folder / "a.zip").write_bytes(damaged(zipped(seed), rng))
    return judged(
        folder / "a.zip", lambda p: data.read_pictures(p, SHAPE, cache=False), among=sound()
    )


@functools.cache
def sound():
    """The three pictures of `zipped`, as they are read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.zip").write_bytes(zipped(0))
        return data.read_pictures(f"{folder}/a.zip", SHAPE, cache=False).images


def one_idx(folder, rng, seed):
    """Whatever passes gzip's checksum is what was written."""
    path = folder / ("a.gz" if seed % 4 else "a")
    content = gzip.compress(idx()) if seed % 4 else idx()
    path.write_bytes(damaged(content, rng))
    try:
        found = data.read_idx(path)
    except ValueError as error:
        assert str(path) in str(error) and "must" in str(error), str(error)
        return "refused"
    assert path.suffix != ".gz" or torch.equal(found.flatten(), torch.tensor(list(idx()[16:])))
    return "read"


def one_lmdb(folder, rng, seed):
    (folder / "data.mdb").write_bytes(damaged(lmdb_file(seed % 2 == 0), rng))
    return judged(folder, lambda p: data.read_pictures(p, SHAPE, cache=False))


def one_kept(folder, rng, seed):
    """A damaged cache is never believed."""
    (folder / "a.zip").write_bytes(zipped(1))
    expected = data.read_pictures(folder / "a.zip", SHAPE)
    (kept,) = (folder / "cache" / "npgd" / "images").iterdir()
    kept.write_bytes(damaged(kept.read_bytes(), rng))
    found = data.read_pictures(folder / "a.zip", SHAPE)
    assert torch.equal(found.images, expected.images)
    assert (found.names, found.skipped) == (expected.names, expected.skipped)
    return "read"


CASES = {
    "picture": one_picture,
    "zip": one_zip,
    "idx": one_idx,
    "lmdb": one_lmdb,
    "kept": one_kept,
}


def outcomes(kind, seeds):
    return [outcome(kind, seed) for seed in seeds]


def run(numbers):
    """The outcomes of so many cases of each kind; a killed process has one for all of its own."""
    context = multiprocessing.get_context("fork")
    results, workers = [], len(os.sched_getaffinity(0))
    for kind, number in numbers.items():
        with concurrent.futures.ProcessPoolExecutor(min(workers, 4), context) as pool:
            seeds = [range(first, min(first + 25, number)) for first in range(0, number, 25)]
            futures = {pool.submit(outcomes, kind, some): some for some in seeds}
            for future, some in futures.items():
                try:
                    results += future.result()
                except concurrent.futures.process.BrokenProcessPool:
                    results.append(f"{kind} {some}: the process was killed")
    return results


def check(numbers):
    for large in (False, True):
        lmdb_file(large)  # here, where it may skip, for all processes
    results = run(numbers)
    wrong = [result for result in results if result not in ("read", "skipped", "refused")]
    assert not wrong, f"{len(wrong)} of {len(results)}: " + "\n".join(wrong[:20])
    assert len(results) == sum(numbers.values())
    assert {"read", "skipped", "refused"} == set(results)


def test_a_damaged_file_is_read_skipped_or_refused_by_name():
    check({"picture": 150, "zip": 100, "idx": 75, "lmdb": 75, "kept": 25})


@pytest.mark.slow
def test_five_thousand_damaged_files_are_read_skipped_or_refused_by_name():
    check({"picture": 2000, "zip": 1200, "idx": 800, "lmdb": 900, "kept": 200})
