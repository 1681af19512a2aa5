"""Pictures of every kind: shown as they are, or refused by name; and where they may lie."""

import gzip
import io
import json
import struct
import tracemalloc
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image, ImageOps

from npgd import data
from npgd.data import decoding, pictures, sources

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOURS = np.dstack([RAMP, RAMP.T, 255 - RAMP])
GREY, RGB = (1, 16, 16), (3, 16, 16)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache folder of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "npgd" / "images"


def read(path, shape=GREY, **options):
    return data.read_pictures(path, shape, cache=False, **options)


def shown(path, shape=GREY, **options):
    """The one picture there, height first."""
    found = read(path, shape, **options)
    assert not found.skipped
    (image,) = found.images
    return image.permute(1, 2, 0).squeeze(-1).numpy()


def reason(path, shape=GREY, **options):
    """Why the one picture there is skipped."""
    with pytest.raises(ValueError, match=r"must be usable, got 1 of 1 pictures in .*") as caught:
        read(path, shape, **options)
    return str(caught.value)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


PNG = encoded(Image.fromarray(RAMP))


def tiff(values, *, bits=None, photometric=1, sample_format=1, order="<"):
    """A TIFF of one strip, as PIL would not write it."""
    height, width = values.shape
    raw = values if isinstance(values, bytes) else values.tobytes()
    bits = bits or values.dtype.itemsize * 8
    entries = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric)]
    entries += [(273, 8), (277, 1), (278, height), (279, len(raw)), (339, sample_format)]
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(f"{order}HI", 42, 8 + len(raw)) + raw
    ifd = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in entries)
    return head + struct.pack(f"{order}H", len(entries)) + ifd + bytes(4)


# --- what a picture shows ---------------------------------------------------------------------


@pytest.mark.parametrize("shape", [GREY, RGB])
def test_sixteen_bit_grey_is_scaled(tmp_path, shape):
    """v ↦ v/257 takes what was 8 bits back, and every value to the nearest."""
    path = tmp_path / "ramp.png"
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(path)
    expected = RAMP if shape == GREY else np.dstack([RAMP] * 3)
    assert np.array_equal(shown(path, shape), expected)
    fine = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(fine).save(path)
    assert np.array_equal(shown(path), np.floor(fine / 257 + 0.5).astype(np.uint8))


def test_a_tiff_of_sixteen_or_twelve_bits_shows_what_its_tags_say(tmp_path):
    path, sixteen = tmp_path / "a.tif", RAMP.astype("<u2") * 257
    twelve = np.arange(256, dtype=np.uint16).reshape(16, 16) * 16
    packed = np.array([[a >> 4, (a & 15) << 4 | b >> 8, b & 255] for a, b in twelve.reshape(-1, 2)])
    for content, expected in [
        (tiff(sixteen), RAMP),
        (tiff(sixteen.astype(">u2"), order=">"), RAMP),
        (tiff(65535 - sixteen, photometric=0), RAMP),
        (tiff(255 - RAMP, photometric=0), RAMP),
    ]:
        path.write_bytes(content)
        assert np.array_equal(shown(path), expected)
    content = bytearray(tiff(packed.astype(np.uint8).reshape(16, 24), bits=12))
    width = content.index(struct.pack("<HHII", 256, 4, 1, 24))
    content[width : width + 12] = struct.pack("<HHII", 256, 4, 1, 16)
    path.write_bytes(content)
    assert np.abs(shown(path) - twelve / 4095 * 255).max() <= 0.5


def test_numbers_without_an_agreed_white_are_refused_by_name(tmp_path):
    path = tmp_path / "a.tif"
    for content, kind in [
        (tiff(RAMP.astype("<f4"), sample_format=3), "mode F"),
        (tiff(RAMP.astype("<i4"), sample_format=2), "mode I"),
        (tiff(RAMP.astype("<u4")), "mode I"),
        (tiff(RAMP.astype("<i2"), sample_format=2), "mode I"),
        (tiff(RAMP.astype("i1"), sample_format=2), "signed bytes"),
        (encoded(Image.new("LAB", (16, 16)), "TIFF"), "mode LAB"),
    ]:
        path.write_bytes(content)
        assert f"a.tif: has {'pixels of ' * kind.startswith('mode')}{kind}" in reason(path)


def with_alpha():
    """Pictures of which the left half is fully transparent."""
    alpha = np.zeros((16, 16), np.uint8)
    alpha[:, 8:] = 255
    palette = Image.fromarray(np.where(alpha, 1, 0).astype(np.uint8)).convert("P")
    palette.putpalette([255, 0, 0, 9, 9, 9])
    sixteen = np.where(alpha, 9 * 257, 40_000).astype(np.uint16)
    nine = np.where(alpha, 9, 200).astype(np.uint8)
    rgb = np.dstack([nine] * 3)
    yield "LA.png", Image.fromarray(np.dstack([nine, alpha])), {}
    yield "RGBA.png", Image.fromarray(np.dstack([rgb, alpha])), {}
    yield "RGBA.webp", Image.fromarray(np.dstack([rgb, alpha])), {"lossless": True}
    yield "RGBA.tif", Image.fromarray(np.dstack([rgb, alpha])), {}
    yield "P.png", palette, {"transparency": 0}
    yield "P.gif", palette, {"transparency": 0}
    yield "PA.png", palette.copy(), {"transparency": bytes([0, 255])}
    yield "L.png", Image.fromarray(nine), {"transparency": 200}
    yield "RGB.png", Image.fromarray(rgb), {"transparency": (200, 200, 200)}
    yield "I16.png", Image.fromarray(sixteen), {"transparency": 40_000}


@pytest.mark.parametrize("shape", [GREY, RGB])
def test_what_is_transparent_shows_the_ground(tmp_path, shape):
    for name, image, options in with_alpha():
        path = tmp_path / name
        image.save(path, **options)
        for ground in (0, 100, 255):
            pixels = shown(path, shape, background=ground)
            assert set(np.unique(pixels[:, :8])) == {ground}, (name, ground)
            assert set(np.unique(pixels[:, 8:])) == {9}, (name, ground)


def test_what_is_half_transparent_is_mixed_with_the_ground(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGBA", (16, 16), (200, 200, 200, 128)).save(path)
    assert abs(int(shown(path)[0, 0]) - 100) <= 1
    assert abs(int(shown(path, background=255)[0, 0]) - 227) <= 1
    for ground in (-1, 256, 1.5, True, None):
        with pytest.raises((TypeError, ValueError), match="background must be"):
            read(path, background=ground)


def test_other_modes_show_what_they_say(tmp_path):
    bits = Image.fromarray(RAMP > 99)
    cmyk = Image.fromarray(COLOURS).convert("CMYK")
    for name, image, expected in [
        ("1.png", bits, (RAMP > 99) * 255),
        ("1.tif", bits, (RAMP > 99) * 255),
        ("P.bmp", Image.fromarray(RAMP).convert("P"), RAMP),
        ("CMYK.tif", cmyk, np.array(cmyk.convert("L"))),
    ]:
        image.save(tmp_path / name)
        assert np.array_equal(shown(tmp_path / name), expected), name
    cmyk.save(tmp_path / "cmyk.jpg", quality=100)
    error = shown(tmp_path / "cmyk.jpg", RGB).astype(int) - np.array(cmyk.convert("RGB"))
    assert np.abs(error).mean() < 4


def test_of_several_pictures_in_a_file_the_first_counts(tmp_path):
    first, second = Image.fromarray(RAMP), Image.fromarray(255 - RAMP)
    for name in ("a.gif", "a.tif", "a.webp", "a.png"):
        options = {"save_all": True, "append_images": [second]}
        first.save(tmp_path / name, **options | ({"lossless": True} if "webp" in name else {}))
        assert np.array_equal(shown(tmp_path / name), RAMP), name


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
def test_exif_turns_a_picture_as_it_says(tmp_path, kind):
    image = Image.fromarray(np.dstack([np.repeat(RAMP, 2, 1)] * 3))
    for orientation in range(1, 10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(tmp_path / f"a.{kind}", exif=exif)
        with Image.open(tmp_path / f"a.{kind}") as opened:
            turned = np.array(ImageOps.exif_transpose(opened).convert("RGB"))
        assert np.array_equal(shown(tmp_path / f"a.{kind}", (3, *turned.shape[:2])), turned)


def test_an_odd_exif_stops_nothing(tmp_path):
    """XResolution as text: rewriting such EXIF raises a TypeError; it is not rewritten."""
    entries = struct.pack("<HHIHHHHI4s", 0x0112, 3, 1, 3, 0, 0x011A, 2, 4, b"abc")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    Image.fromarray(RAMP).save(tmp_path / "a.jpg", exif=exif, quality=100)
    with Image.open(tmp_path / "a.jpg") as opened, pytest.raises(TypeError):
        ImageOps.exif_transpose(opened)
    with Image.open(tmp_path / "a.jpg") as opened:
        plain = np.array(opened)
    assert np.array_equal(shown(tmp_path / "a.jpg"), plain[::-1, ::-1])


def test_any_exception_of_a_decoder_skips_one_picture_by_name(tmp_path, monkeypatch):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(PNG)
    kinds = [TypeError, KeyError, AttributeError, OverflowError, MemoryError, zlib.error]
    for kind in [
        *kinds,
        RecursionError,
        AssertionError,
        zipfile.BadZipFile,
        Image.DecompressionBombError,
    ]:

        def failing(file, *options, kind=kind):
            if "a.png" in file.name:
                raise kind("what\n\x1b[31m went wrong")
            return decoding.decode(file, *options)

        monkeypatch.setattr(pictures, "decode", failing)
        found = read(tmp_path)
        assert found.names == ["b.png"] and [skip.name for skip in found.skipped] == ["a.png"]
        assert "\\x1b[31m went wrong" in found.skipped[0].why
        with pytest.raises(ValueError, match=r"1 of 2 .*a\.png"):
            read(tmp_path, strict=True)
        with pytest.warns(UserWarning, match=r"1 of 2 .*a\.png"):
            data.image_archive(tmp_path, GREY, cache=False)


def test_only_the_decoders_of_the_documented_suffixes_run(tmp_path, monkeypatch):
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\n%%EOF\n"
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("it ran"))
    for name, content in [
        ("a.jpg", eps),
        ("b.png", b"P5 16 16 255\n" + bytes(256)),
        ("c.gif", encoded(Image.fromarray(RAMP), "TGA")),
        ("d.tif", encoded(Image.fromarray(COLOURS), "JPEG2000")),
    ]:
        (tmp_path / name).write_bytes(content)
        assert f"{name}: is no picture" in reason(tmp_path / name)
    (tmp_path / "e.jpg").write_bytes(PNG)  # a wrong suffix is common, and harmless
    assert np.array_equal(shown(tmp_path / "e.jpg"), RAMP)


def test_pictures_that_are_not_read_here_are_counted_and_named(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    for name in ("b.HEIC", "c.pgm", "d.avif", "e.svg"):
        (tmp_path / name).write_bytes(b"whatever it holds")
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.warns(UserWarning, match=r"4 of 5 .* \(b\.HEIC: \.heic is not read here; .*c\.pgm"):
        assert data.image_archive(tmp_path, GREY, cache=False)[1] == ["a.png"]
    assert "c.pgm: .pgm is not read here; convert it to PNG" in reason(tmp_path / "c.pgm")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match=r"got none in .*texts \(1 files in all: \.txt ×1\)"):
        read(tmp_path / "texts")


def test_a_picture_beyond_the_limit_is_skipped_with_its_limit(tmp_path, monkeypatch):
    row = zlib.compress(bytes(1001 * 64))

    def png(side):
        head = struct.pack(">2I5B", side, side, 1, 0, 0, 0, 0)
        chunks = [(b"IHDR", head), (b"IDAT", row), (b"IEND", b"")]
        body = [
            struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c))
            for k, c in chunks
        ]
        return b"\x89PNG\r\n\x1a\n" + b"".join(body)

    for side in (8001, 20_000, 2**31 - 1):
        (tmp_path / "a.png").write_bytes(png(side))
        assert "a.png: has more than 64 megapixels; scale it down first" in reason(
            tmp_path / "a.png"
        )
    (tmp_path / "a.png").write_bytes(PNG)
    monkeypatch.setattr(decoding, "LARGEST_PICTURE", 255)
    assert "megapixels" in reason(tmp_path / "a.png")
    monkeypatch.setattr(decoding, "LARGEST_PICTURE", 256)
    assert np.array_equal(shown(tmp_path / "a.png"), RAMP)


def test_a_jpeg_of_endless_scans_is_skipped_before_it_is_read(tmp_path):
    whole = encoded(Image.fromarray(RAMP), "JPEG", progressive=True)
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    for times, refused in [(100, False), (1000, True)]:
        (tmp_path / "a.jpg").write_bytes(whole[:-2] + scan * times + whole[-2:])
        if refused:
            assert "a.jpg: has more than 500 scans" in reason(tmp_path / "a.jpg")
        else:
            assert np.abs(shown(tmp_path / "a.jpg").astype(int) - RAMP).mean() < 9


def test_a_flipped_bit_of_a_png_changes_no_pixel(tmp_path):
    """PNG's checksums cover all that is shown."""
    for seed, image in enumerate([RAMP, COLOURS, RAMP.astype(np.uint16) * 257]):
        whole = encoded(Image.fromarray(image))
        (tmp_path / "a.png").write_bytes(whole)
        expected, refused = shown(tmp_path / "a.png"), 0
        for bit in range(seed, 8 * len(whole), 7):
            content = bytearray(whole)
            content[bit // 8] ^= 1 << bit % 8
            (tmp_path / "a.png").write_bytes(content)
            try:
                assert np.array_equal(shown(tmp_path / "a.png"), expected), bit
            except ValueError:
                refused += 1
        assert refused > 0.9 * len(whole)


# --- where pictures lie -----------------------------------------------------------------------


def test_one_file_is_a_source(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(PNG)
    found = data.read_pictures(tmp_path / "a.png", GREY)
    assert found.names == ["a.png"] and len(found.images) == 1
    assert data.read_pictures(tmp_path / "b.png", GREY).names == ["b.png"]
    with pytest.raises(ValueError, match=r"must be a picture \(.*, got .*a\.txt"):
        (tmp_path / "a.txt").write_text("")
        read(tmp_path / "a.txt")


def test_symbolic_links_are_followed_and_come_to_an_end(tmp_path):
    folder, away = tmp_path / "folder", tmp_path / "away"
    folder.mkdir()
    away.mkdir()
    (away / "a.png").write_bytes(PNG)
    (folder / "linked").symlink_to(away)
    (folder / "b.png").symlink_to(away / "a.png")
    (folder / "gone.png").symlink_to(tmp_path / "nothing.png")
    (folder / "null.png").symlink_to("/dev/null")
    (away / "round").symlink_to(folder)
    found = read(folder)
    assert found.names == ["b.png", "linked/a.png"]
    assert [skip.name for skip in found.skipped] == ["gone.png", "linked/round/", "null.png"]
    (tmp_path / "whole").symlink_to(folder)
    assert read(tmp_path / "whole").names == found.names


def test_of_a_count_no_more_is_decoded(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("0.png", b"broken")
        for i in range(1, 30):
            archive.writestr(f"{i:02d}.png", PNG)
    decoded = []

    def counting(*arguments):
        decoded.append(arguments)
        return decoding.decode(*arguments)

    monkeypatch.setattr(pictures, "decode", counting)
    found = data.read_pictures(tmp_path / "a.zip", GREY, count=2)
    assert found.names == ["01.png", "02.png"] and len(decoded) == 3
    assert [skip.name for skip in found.skipped] == ["0.png"]
    everything = data.read_pictures(tmp_path / "a.zip", GREY)
    assert len(everything.names) == 29 and len(decoded) == 3 + 30
    again = data.read_pictures(tmp_path / "a.zip", GREY, count=5)  # from what is kept
    assert again.names == everything.names[:5] and len(decoded) == 33
    assert len(data.read_pictures(tmp_path / "a.zip", GREY, count=500).names) == 29


def test_of_a_name_that_stands_twice_in_a_zip_the_last_entry_counts(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("a.png", encoded(Image.fromarray(255 - RAMP)))
        archive.writestr("b.png", PNG)
        archive.writestr("a.png", PNG)
    found = read(tmp_path / "a.zip")
    assert found.names == ["a.png", "b.png"] and torch.equal(found.images[0], found.images[1])
    assert [skip.name for skip in found.skipped] == ["a.png"]
    with pytest.raises(ValueError, match=r"1 of 3 .*a\.png: its name stands in the zip again"):
        read(tmp_path / "a.zip", strict=True)


def test_names_come_as_they_are_and_are_told_without_escape_codes(tmp_path):
    names = ["[bold]x[/].png", "\x1b[31mred.png", "{}{0}.png", "日本.png", "a\nb.png"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.writestr(name, PNG)
            archive.writestr("no" + name, b"broken")
    with pytest.warns(UserWarning, match="5 of 10") as caught:
        assert data.image_archive(tmp_path / "a.zip", GREY)[1] == sorted(names)
    told = str(caught[0].message)
    assert told.isprintable() and "no\\x1b[31mred.png" in told and "日本" in told
    found = data.read_pictures(tmp_path / "a.zip", GREY)
    assert sorted(skip.name for skip in found.skipped) == sorted("no" + name for name in names)
    json.dumps([skip._asdict() for skip in found.skipped])


def test_a_zip_that_lies_or_cannot_be_unpacked_is_skipped_by_entry(tmp_path, monkeypatch):
    """Bombs whose size is told and whose size is not, encrypted and unknown entries, LZMA."""
    path, bomb = tmp_path / "a.zip", bytes(2**22)
    monkeypatch.setattr(sources, "LARGEST_FILE", 2**20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", PNG)
        archive.writestr("told.png", bomb)
        for name, method in [("untold.png", 8), ("bz2.png", 12), ("lzma.png", 14)]:
            archive.writestr(name, bomb, method)
        for name in ("encrypted.png", "method.png", "version.png"):
            archive.writestr(name, PNG)
    content = bytearray(path.read_bytes())
    for name, offset, value in [
        ("untold.png", 24, struct.pack("<I", 200)),
        ("bz2.png", 24, struct.pack("<I", 200)),
        ("lzma.png", 24, struct.pack("<I", 200)),
        ("encrypted.png", 8, b"\x01"),
        ("method.png", 10, b"\x63"),
    ]:
        entry = content.rindex(name.encode()) - 46
        content[entry + offset : entry + offset + len(value)] = value
    path.write_bytes(content)
    tracemalloc.start()
    found = read(path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    reasons = dict(found.skipped)
    assert found.names == ["a.png", "version.png"]
    assert reasons.keys() == {
        "told.png",
        "untold.png",
        "bz2.png",
        "lzma.png",
        "encrypted.png",
        "method.png",
    }
    assert (
        "unpacks to 4194304 bytes" in reasons["told.png"]
        and "encrypted" in reasons["encrypted.png"]
    )
    entry = content.rindex(b"version.png") - 46
    content[entry + 6] = 99
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"or a readable zip, got .*a\.zip: zip file version 9\.9"):
        read(path)


def test_an_lmdb_cut_short_is_refused_before_it_is_read(tmp_path):
    lmdb = pytest.importorskip("lmdb", reason="the package lmdb is not installed")
    with lmdb.open(str(tmp_path), map_size=2**22) as env, env.begin(write=True) as write:
        for i in range(50):
            write.put(b"%d" % i, PNG + bytes(6000))
    assert len(read(tmp_path).names) == 50
    whole = (tmp_path / "data.mdb").read_bytes()
    for size in range(0, len(whole), len(whole) // 20):
        (tmp_path / "data.mdb").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=f"must be a readable LMDB, got {tmp_path}: "):
            read(tmp_path)


@pytest.mark.parametrize("writemap", [False, True])
def test_an_lmdb_reads_as_its_own_library_reads_it(tmp_path, writemap):
    lmdb = pytest.importorskip("lmdb", reason="the package lmdb is not installed")
    from npgd.data.lmdb_file import LmdbFile

    rng, expected = np.random.default_rng(0), {}
    with lmdb.open(str(tmp_path), map_size=2**26, writemap=writemap) as env:
        with env.begin(write=True) as write:
            for _ in range(1500):
                key, size = rng.bytes(rng.integers(1, 40)), rng.choice([0, 9, 2010, 2040, 30_000])
                expected[key] = rng.bytes(size)
                write.put(key, expected[key])
        with env.begin(write=True) as write:
            for key in list(expected)[::3]:
                write.delete(key)
                del expected[key]
    file = LmdbFile(tmp_path / "data.mdb")
    assert file.keys == sorted(expected)
    assert all(file.read(key, 2**20) == value for key, value in expected.items())
    file.close()


def test_what_older_code_kept_is_not_read(tmp_path, cache, monkeypatch):
    (tmp_path / "a.png").write_bytes(PNG)
    monkeypatch.setattr(pictures, "DECODING", pictures.DECODING - 1)
    data.read_pictures(tmp_path, GREY)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent.parent))
    (kept,) = cache.iterdir()
    before = kept.read_bytes()
    data.read_pictures(tmp_path, GREY)
    assert kept.read_bytes() != before


def test_without_a_home_nothing_is_kept_and_all_is_read(tmp_path, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    (tmp_path / "a.png").write_bytes(PNG)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", homeless)
    with pytest.warns(UserWarning, match=r"cannot be kept \(the cache folder must be named by XDG"):
        assert data.image_archive(tmp_path, GREY)[1] == ["a.png"]
    monkeypatch.delenv("NPGD_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="XDG_CACHE_HOME"):
        data.mnist()


# --- data sets --------------------------------------------------------------------------------


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("folder", ["", "mnist", "MNIST/raw", "raw"])
@pytest.mark.parametrize("suffix", ["idx{}-ubyte", "idx{}-ubyte.gz", ".idx{}-ubyte"])
def test_mnist_is_found_as_others_lay_it_out(tmp_path, folder, suffix):
    place = tmp_path / folder
    place.mkdir(parents=True, exist_ok=True)
    arrays = {"images": np.zeros((3, 28, 28)), "labels": np.array([7, 2, 1])}
    for kind, array in arrays.items():
        content = gzip.compress(idx(array)) if suffix.endswith("gz") else idx(array)
        end = suffix.format(array.ndim)
        (place / f"t10k-{kind}{'' if end.startswith('.') else '-'}{end}").write_bytes(content)
    images, labels = data.mnist_uint8("test", tmp_path)
    assert images.shape == (3, 1, 28, 28) and labels.tolist() == [7, 2, 1]


def test_an_idx_file_takes_no_more_memory_than_it_holds(tmp_path):
    path, stated = tmp_path / "a.gz", struct.pack(">4B3I", 0, 0, 8, 3, 1000, 28, 28)
    tracemalloc.start()
    for content, message in [
        (
            gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 2**32 - 1, 28, 28)),
            "from 1 to 1073741824",
        ),
        (gzip.compress(stated + bytes(9)), r"shape \(1000, 28, 28\), got 9 bytes"),
        (gzip.compress(stated + bytes(2**26)), r"shape \(1000, 28, 28\), got more"),
        (gzip.compress(bytes([0, 0, 8, 255]) + bytes(1020)), "from 1 to 8 dimensions, got 255"),
        (gzip.compress(struct.pack(">4B1I", 0, 0, 8, 1, 0)), "from 1 to 1073741824"),
        (b"\x1f\x8b", "must be a readable gzip file"),
    ]:
        path.write_bytes(content)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        with pytest.raises(ValueError, match=message) as caught:
            data.read_idx(path)
        assert str(path) in str(caught.value)
        assert tracemalloc.get_traced_memory()[1] - before < 2**23
    tracemalloc.stop()


def test_every_flipped_bit_of_a_gzipped_idx_file_is_noticed(tmp_path):
    """All but those that say nothing: gzip's header and the bits that fill its last byte."""
    path = tmp_path / "a.gz"
    whole = gzip.compress(idx(np.arange(12).reshape(3, 4)), mtime=0)
    for bit in range(8 * 10, 8 * len(whole)):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            found = data.read_idx(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:
            assert found.flatten().tolist() == list(range(12)), bit


def test_mnist_is_downloaded_by_its_sha256_or_not_at_all(tmp_path, monkeypatch):
    import pooch

    asked = {}

    def offline(**options):
        asked.update(options)
        raise ConnectionError("no route to\nhost")

    monkeypatch.setattr(pooch, "retrieve", offline)
    with pytest.raises(
        data.DataNotFoundError, match=r"downloaded from https://.*: no route to host"
    ):
        data.mnist("test", tmp_path, download=True)
    assert asked["known_hash"] == "sha256:" + data.MNIST_SHA256["t10k-images-idx3-ubyte.gz"]
    monkeypatch.undo()
    monkeypatch.setattr("npgd.data.idx.MNIST_URL", (tmp_path / "files").as_uri() + "/")
    monkeypatch.setattr(
        pooch, "retrieve", lambda **_: (_ for _ in ()).throw(ValueError("SHA256 hash (x) of (y)"))
    )
    with pytest.raises(ValueError, match=r"t10k-images.* must have MNIST's checksum, got SHA256"):
        data.mnist("test", tmp_path, download=True)
    assert all(len(bytes.fromhex(digest)) == 32 for digest in data.MNIST_SHA256.values())
    assert data.MNIST_SHA256.keys() == {
        name for names in data.MNIST_FILES.values() for name in names
    }


def test_a_celeba_name_without_its_number_is_skipped(tmp_path):
    with zipfile.ZipFile(tmp_path / "img_align_celeba.zip", "w") as archive:
        for name in ("000001.jpg", "000001 (1).jpg", "Thumbs.png", "182638.jpg", "²³.jpg"):
            archive.writestr(f"img_align_celeba/{name}", encoded(Image.new("RGB", (178, 218))))
    for split in ("train", "test"):
        with pytest.warns(UserWarning, match=r"3 of 4 .*000001 \(1\)\.jpg: its name is not CelebA"):
            assert len(data.celeba_uint8(split, tmp_path)) == 1
    with pytest.warns(UserWarning, match="3 of 4"):
        assert len(data.celeba("test", tmp_path, count=1)) == 1
    with pytest.raises(ValueError, match=r"must all be usable, got 3 of 4"):
        data.celeba_uint8("test", tmp_path, strict=True)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="count must be from 1 to 1, "):
        data.celeba("test", tmp_path, count=2)


# --- pixels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_callers_tensor_stays_as_it_is(dtype):
    grey, pixels = torch.arange(0, 256, dtype=dtype), torch.linspace(-2, 2, 99).to(dtype)
    before = grey.clone(), pixels.clone()
    there, back = data.to_pixels(grey), data.to_uint8(pixels)
    assert torch.equal(grey, before[0]) and torch.equal(pixels, before[1])
    assert there.dtype == torch.float32 and back.dtype == torch.uint8
    with torch.inference_mode():
        assert torch.equal(data.to_pixels(grey), there) and torch.equal(data.to_uint8(pixels), back)
    assert torch.equal(data.to_uint8(pixels.requires_grad_()), back)


def test_what_has_no_grey_value_is_refused():
    for bad in (
        torch.zeros(3, dtype=torch.uint8),
        torch.zeros(3, dtype=torch.complex64),
        [0.0],
        "x",
    ):
        with pytest.raises(TypeError, match="images must be"):
            data.to_uint8(bad)
    with pytest.raises(ValueError, match="images must be numbers, got NaN in 1 of 3 pixels"):
        data.to_uint8(torch.tensor([0.0, float("nan"), 1.0]))
    assert data.to_uint8(torch.tensor([-torch.inf, torch.inf])).tolist() == [0, 255]
    for bad in (
        torch.ones(3, dtype=torch.bool),
        torch.zeros(3, dtype=torch.complex64),
        np.zeros(3),
    ):
        with pytest.raises(TypeError, match="images must"):
            data.to_pixels(bad)
    for bad in (torch.tensor([256.0]), torch.tensor([-1]), torch.tensor([float("nan")])):
        with pytest.raises(ValueError, match="from 0 to 255, got 1 of 1 outside"):
            data.to_pixels(bad)


# --- doors ------------------------------------------------------------------------------------

ODD = [None, True, 0, -1, 1.5, float("nan"), 10**400, "", "x", "a\0b", b"x", [], {}, (1,), object()]
ODD += [1j, np.float32(1), np.array([1, 2]), torch.zeros(2), torch.tensor(3.5), float("inf"), len]
AT_MOST = ("read_pictures", "image_archive", "celeba_uint8", "church_uint8")


def valid(function, argument, odd):
    """Whether an odd value is a good one for this argument."""
    if argument in ("strict", "cache", "download"):
        return odd is True
    if argument in ("crop", "count"):  # a huge crop fits pictures of the wanted size
        return odd is None or (function in AT_MOST and type(odd) is int and odd > 1)
    return {
        "split": function in ("read_pictures", "image_archive") and odd is None,
        "background": type(odd) is int and odd == 0,
        "data_dir": odd is None or (type(odd) is str and odd == "x"),
        "images": isinstance(odd, torch.Tensor),
        "belongs": odd is None or odd is len,
    }.get(argument, False)


CALLS = {
    "read_pictures": [
        "path",
        "image_shape",
        "crop",
        "split",
        "count",
        "background",
        "strict",
        "cache",
        "belongs",
    ],
    "image_archive": [
        "path",
        "image_shape",
        "crop",
        "split",
        "count",
        "background",
        "strict",
        "cache",
    ],
    "read_idx": ["path"],
    "data_directory": ["data_dir"],
    "mnist": ["split", "data_dir", "count", "download"],
    "mnist_uint8": ["split", "data_dir", "download"],
    "celeba": ["split", "data_dir", "count"],
    "celeba_uint8": ["split", "data_dir", "strict", "count"],
    "church": ["split", "data_dir", "count"],
    "church_uint8": ["split", "data_dir", "strict", "count"],
    "dataset": ["name", "split", "data_dir", "count", "download", "strict"],
    "dataset_uint8": ["name", "split", "data_dir", "download", "strict", "count"],
    "to_pixels": ["images"],
    "to_uint8": ["images"],
}


def test_every_odd_argument_gets_a_sentence_that_names_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = [tmp_path / kind for kind in ("celeba64.zip", "church64.zip")]
    for place in [tmp_path / "a.zip", *places]:
        with zipfile.ZipFile(place, "w") as archive:
            archive.writestr("test/a.png", PNG)
            archive.writestr("test/b.png", encoded(Image.new("RGB", (128, 128))))
    for kind, array in {"images-idx3": np.zeros((3, 28, 28)), "labels-idx1": np.ones(3)}.items():
        (tmp_path / f"t10k-{kind}-ubyte").write_bytes(idx(array))
    good = {"path": tmp_path / "a.zip", "image_shape": GREY, "data_dir": tmp_path, "name": "church"}
    tried = 0
    for function, arguments in CALLS.items():
        for argument in arguments:
            known = {name: good[name] for name in arguments if name in good}
            for odd in ODD:
                tried += 1
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        getattr(data, function)(**known | {argument: odd})
                except (TypeError, ValueError, FileNotFoundError) as error:
                    told = str(error)
                    named = any(word in told for word in (argument, "dataset must", "images must"))
                    sentence = ("must" in told and named) or isinstance(error, FileNotFoundError)
                    what = f"{function}({argument}={odd!r}): {type(error).__name__}: {told}"
                    assert sentence and len(told) < 1000, what
                else:
                    good_one = valid(function, argument, odd)
                    assert good_one, f"{function}({argument}={odd!r}) is accepted"
    assert tried > 900
