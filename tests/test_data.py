"""Images in: IDX files, folders of pictures, and what is wrong with them."""

import gzip
import struct

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
        (gzip.compress(idx(array)[:-1]), "not what its header states"),
        (gzip.compress(b"PNG" + idx(array)), "not an IDX file"),
        (gzip.compress(b"\0\0\x0d\x01" + idx(array)[4:]), "IDX type 0x0d"),
        (b"nothing gzipped", "not a readable gzip"),
        (gzip.compress(idx(array))[:-9], "not a readable gzip"),
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


def test_count_is_checked(digits):
    with pytest.raises(ValueError, match="count: 0"):
        data.mnist("test", count=0)
    with pytest.raises(ValueError, match="count: 10001"):
        data.mnist("test", count=10_001)


def test_a_folder_of_pictures(tmp_path):
    ramp = np.tile(np.arange(28, dtype=np.uint8) * 9, (28, 1))
    Image.fromarray(ramp).save(tmp_path / "b.png")
    Image.fromarray(np.full((60, 100, 3), 255, np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "notes.txt").write_text("no picture")
    images, names = data.image_folder(tmp_path, (1, 28, 28))
    assert names == ["a.jpg", "b.png"] and images.shape == (2, 1, 28, 28)
    assert float((images[0] - 1).abs().max()) < 0.02
    assert torch.equal(data.to_uint8(images[1, 0]), torch.from_numpy(ramp))
    assert data.image_folder(tmp_path, (3, 8, 8))[0].shape == (2, 3, 8, 8)
    (tmp_path / "c.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"c\.png cannot be read"):
        data.image_folder(tmp_path, (1, 28, 28))
    with pytest.raises(ValueError, match="not a folder"):
        data.image_folder(tmp_path / "absent", (1, 28, 28))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no picture"):
        data.image_folder(tmp_path / "empty", (1, 28, 28))
    with pytest.raises(ValueError, match="channels"):
        data.image_folder(tmp_path, (2, 28, 28))
