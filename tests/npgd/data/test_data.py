"""Images in: IDX files, folders of pictures, and what is wrong with them."""

import gzip
import io
import struct
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from npgd import data


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


@given(st.binary(min_size=1, max_size=64))
def test_bytes_survive_the_way_to_pixels_and_back(raw):
    grey = torch.tensor(list(raw), dtype=torch.uint8)
    pixels = data.to_pixels(grey)
    assert float(pixels.abs().max()) <= 1
    assert torch.equal(data.to_uint8(pixels), grey)


def test_mnist_is_read_in_order(digits):
    images, labels = data.mnist_uint8("test")
    assert images.shape == (10_000, 1, 28, 28) and labels.shape == (10_000,)
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert torch.equal(data.mnist("test", count=32), digits)
    assert float(digits.min()) == -1 and float(digits.max()) == 1


def test_idx_files_are_checked(tmp_path):
    array = np.arange(24).reshape(2, 3, 4)
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(idx(array)))
    assert data.read_idx(path).tolist() == array.tolist()
    for content, message in [
        (gzip.compress(idx(array)[:-1]), "must hold what its header states"),
        (gzip.compress(b"PNG" + idx(array)), "must be an IDX file"),
        (gzip.compress(b"\0\0\x0d\x01" + idx(array)[4:]), "got 0x0d"),
        (b"nothing gzipped", "must be a readable gzip"),
        (gzip.compress(idx(array))[:-9], "must be a readable gzip"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            data.read_idx(path)


def test_what_is_not_there_is_said(tmp_path, monkeypatch):
    with pytest.raises(data.DataNotFoundError, match="NPGD_DATA"):
        data.mnist("test", data_dir=tmp_path)
    with pytest.raises(ValueError, match="split"):
        data.mnist("validation")
    monkeypatch.setenv("NPGD_DATA", str(tmp_path))
    assert data.data_directory() == tmp_path


def test_a_count_beyond_the_split_is_refused(digits):
    with pytest.raises(ValueError, match=r"count must be from 1 to 10000, .* got 0"):
        data.mnist("test", count=0)
    with pytest.raises(ValueError, match="count must be from 1 to 10000"):
        data.mnist("test", count=10_001)


def test_a_folder_of_pictures(tmp_path):
    ramp = np.tile(np.arange(28, dtype=np.uint8) * 9, (28, 1))
    Image.fromarray(ramp).save(tmp_path / "b.png")
    Image.fromarray(np.full((60, 100, 3), 255, np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "notes.txt").write_text("no picture")
    images, names = data.image_archive(tmp_path, (1, 28, 28), cache=False)
    assert names == ["a.jpg", "b.png"] and images.shape == (2, 1, 28, 28)
    assert int(images[0].min()) >= 253
    assert torch.equal(images[1, 0], torch.from_numpy(ramp))
    assert data.image_archive(tmp_path, (3, 8, 8), cache=False)[0].shape == (2, 3, 8, 8)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="must hold pictures"):
        data.image_archive(tmp_path / "empty", (1, 28, 28), cache=False)
    with pytest.raises(ValueError, match="image_shape must have 1 channel"):
        data.image_archive(tmp_path, (2, 28, 28), cache=False)


# --- archives of pictures ---------------------------------------------------------------------


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache folder of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "npgd" / "images"


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write_zip(path, entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


PICTURES = {
    f"{split}/{i}.png": noise(i, 64, 64, 3) for i, split in enumerate(["train", "test"] * 3)
}


def test_a_zip_is_read_by_split_and_in_order(tmp_path):
    path = tmp_path / "a.zip"
    shuffled = dict(reversed(PICTURES.items()))
    write_zip(path, {name: png(array) for name, array in shuffled.items()} | {"readme.txt": b""})
    for split in ("train", "test", None):
        images, names = data.image_archive(path, (3, 64, 64), split=split)
        assert names == sorted(n for n in PICTURES if split is None or n.startswith(split))
        for name, image in zip(names, images, strict=True):
            assert np.array_equal(image.permute(1, 2, 0).numpy(), PICTURES[name])
    with pytest.raises(ValueError, match="got none in validation/"):
        data.image_archive(path, (3, 64, 64), split="validation")


def test_a_folder_reads_as_its_zip_does(tmp_path):
    for name, array in PICTURES.items():
        place = tmp_path / "folder" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(png(array))
    (tmp_path / "folder" / "train" / "._0.png").write_bytes(b"what a Macintosh leaves")
    write_zip(tmp_path / "a.zip", {name: png(array) for name, array in PICTURES.items()})
    folder = data.image_archive(tmp_path / "folder", (3, 64, 64), split="train")
    archive = data.image_archive(tmp_path / "a.zip", (3, 64, 64), split="train")
    assert torch.equal(folder[0], archive[0]) and folder[1] == archive[1]


def test_a_crop_is_centred_and_resizing_antialiases(tmp_path):
    """As CelebA comes, 178×218: what is outside the centred 108 pixels leaves no trace."""
    inside = noise(0, 108, 108, 3)
    outer = [noise(seed, 218, 178, 3) for seed in (1, 2)]
    stripes = np.zeros((218, 178, 3), np.uint8)
    stripes[:, ::2] = 255
    for picture in outer:
        picture[55:163, 35:143] = inside
    entries = {"a.png": png(outer[0]), "b.png": png(outer[1]), "c.png": png(stripes)}
    write_zip(tmp_path / "a.zip", entries)
    images, _ = data.image_archive(tmp_path / "a.zip", (3, 64, 64), crop=108)
    assert torch.equal(images[0], images[1])
    assert abs(float(images[0].float().mean()) - inside.mean()) < 2
    # Stripes of one pixel are beyond what 64 pixels can show: grey, not a beat of stripes.
    assert float((images[2, :, 4:-4, 4:-4].float() - 127.5).abs().max()) < 45
    whole, _ = data.image_archive(tmp_path / "a.zip", (3, 64, 64))
    assert not torch.equal(whole[0], whole[1])


def test_odd_pictures_are_skipped_by_name_or_refused(tmp_path):
    path = tmp_path / "a.zip"
    entries = {f"{i}.png": png(noise(i, 64, 64, 3)) for i in range(3)}
    entries |= {
        "empty.png": b"",
        "cut.png": entries["0.png"][:500],
        "no.jpg": b"not a picture",
        "small.png": png(noise(0, 20, 200, 3)),
        "grey.png": png(noise(0, 64, 64)),
    }
    write_zip(path, entries)
    for _ in range(2):  # the second time from the cache
        with pytest.warns(UserWarning, match=r"4 of 8 pictures .* are skipped") as caught:
            images, names = data.image_archive(path, (3, 64, 64), crop=48)
        assert names == ["0.png", "1.png", "2.png", "grey.png"] and len(images) == 4
        for name in ("empty.png", "cut.png", "no.jpg", "small.png: 200×20 pixels, smaller"):
            assert name in str(caught[0].message)
        assert torch.equal(images[3, 0], images[3, 2])
        with pytest.raises(ValueError, match=r"must all be usable, got 4 of 8 .*cut\.png"):
            data.image_archive(path, (3, 64, 64), crop=48, strict=True)


@pytest.mark.parametrize(
    "name", ["/etc/a.png", "../a.png", "x/../../a.png", "C:\\a.png", "..\\a.png"]
)
def test_a_zip_with_unsafe_paths_is_refused(tmp_path, name):
    write_zip(tmp_path / "a.zip", {"0.png": png(PICTURES["train/0.png"]), name: b"x"})
    with pytest.raises(ValueError, match="without unsafe paths"):
        data.image_archive(tmp_path / "a.zip", (3, 64, 64))


def test_a_zip_with_a_symbolic_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("a.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match="without symbolic links"):
        data.image_archive(tmp_path / "a.zip", (3, 64, 64))
    (tmp_path / "b.zip").write_bytes(b"no zip at all")
    with pytest.raises(ValueError, match="or a readable zip"):
        data.image_archive(tmp_path / "b.zip", (3, 64, 64))
    with pytest.raises(ValueError, match="must be a picture, or a folder, zip or LMDB"):
        data.image_archive(tmp_path / "absent", (3, 64, 64))


def test_the_cache_is_used_until_the_source_changes(tmp_path, cache, monkeypatch):
    path = tmp_path / "a.zip"
    write_zip(path, {"0.png": png(noise(0, 64, 64, 3))})
    first, names = data.image_archive(path, (3, 64, 64))
    (kept,) = cache.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr("npgd.data.pictures.decode", lambda *_: pytest.fail("decoded again"))
        again = data.image_archive(path, (3, 64, 64))
    assert torch.equal(first, again[0]) and names == again[1]
    # a broken cache is made again; so is one of another source, in the same place
    kept.write_bytes(kept.read_bytes()[:100])
    assert torch.equal(data.image_archive(path, (3, 64, 64))[0], first)
    write_zip(path, {"0.png": png(noise(1, 64, 64, 3)), "1.png": png(noise(2, 64, 64, 3))})
    assert len(data.image_archive(path, (3, 64, 64))[0]) == 2
    assert list(cache.iterdir()) == [kept]
    # settings other than these have a place of their own
    data.image_archive(path, (1, 64, 64))
    assert len(list(cache.iterdir())) == 2
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))  # a file: nothing can be kept there
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert len(data.image_archive(path, (3, 64, 64))[0]) == 2


def test_an_lmdb_is_read_as_lsun_ships_it(tmp_path):
    lmdb = pytest.importorskip("lmdb", reason="the optional dependency lmdb is not installed")
    pictures = {b"\x01key": noise(0, 64, 64, 3), b"\xffkey": noise(1, 64, 64, 3)}
    place = str(tmp_path / "church_outdoor_val_lmdb")
    with lmdb.open(place, map_size=2**20) as environment, environment.begin(write=True) as write:
        for key, array in pictures.items():
            write.put(key, png(array))
        write.put(b"broken", b"no picture")
    with pytest.warns(UserWarning, match=f"1 of 3 .*{b'broken'.hex()}"):
        images = data.church_uint8("test", tmp_path)
    for image, array in zip(images, pictures.values(), strict=True):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), array)


def test_celeba_as_it_comes_is_split_by_its_own_partition(tmp_path):
    numbers = (1, 162_770, 162_771, 182_637, 182_638, 202_599)
    entries = {f"img_align_celeba/{i:06d}.jpg": png(noise(i, 218, 178, 3)) for i in numbers}
    write_zip(tmp_path / "img_align_celeba.zip", entries)
    train, test = (data.celeba_uint8(split, tmp_path) for split in ("train", "test"))
    everything, _ = data.image_archive(tmp_path / "img_align_celeba.zip", (3, 64, 64), 108)
    assert torch.equal(torch.cat([train, test]), everything[[0, 1, 4, 5]])
    with pytest.raises(ValueError, match="split"):
        data.celeba("validation", tmp_path)
    with pytest.raises(data.DataNotFoundError, match=r"church64\.zip"):
        data.church("test", tmp_path)
    with pytest.raises(ValueError, match=r"dataset must be one of .* got 'cats'"):
        data.dataset_uint8("cats")


@pytest.mark.parametrize(("name", "test", "train"), [("celeba", 500, 9500), ("church", 200, 1500)])
def test_the_colour_sets_have_two_splits_that_share_nothing(name, test, train):
    try:
        held_out, images = data.dataset_uint8(name, "test"), data.dataset_uint8(name, "train")
    except data.DataNotFoundError as error:
        pytest.skip(str(error))
    assert held_out.shape[1:] == images.shape[1:] == data.IMAGE_SHAPES[name]
    assert len(held_out) >= test and len(images) >= train
    sums = [
        {bytes(row) for row in x[:, :, 20:40:5, 20:40:5].flatten(1).numpy()}
        for x in (held_out, images)
    ]
    assert not sums[0] & sums[1]
    assert torch.equal(data.dataset(name, "test", count=3), data.to_pixels(held_out[:3]))
