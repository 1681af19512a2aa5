"""Files are whole or not at all: many writers, planted links, full names, killed processes."""

import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from analysis.testing import normal
from npgd import files
from npgd.checks import shown
from npgd.files import TEMPORARY, as_json, sentence, write_atomically, write_together


def leftovers(folder):
    begins, ends = TEMPORARY
    return [p for p in folder.iterdir() if p.name.startswith(begins) and p.name.endswith(ends)]


def test_of_many_threads_that_write_one_path_one_wins_whole(tmp_path):
    path, seen, done = tmp_path / "a.bin", set(), threading.Event()
    contents = {bytes([i]) * (1000 + 7919 * i) for i in range(8)}

    def read():
        while not done.is_set():
            if path.exists():
                seen.add(path.read_bytes())

    with ThreadPoolExecutor(9) as pool:
        reading = pool.submit(read)
        writes = [pool.submit(write_atomically, path, c) for _ in range(25) for c in contents]
        for write in writes:
            write.result()
        done.set()
        reading.result()
    assert seen | {path.read_bytes()} <= contents
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_at_a_temporary_name_is_never_followed(tmp_path, monkeypatch):
    victim, path = tmp_path / "victim", tmp_path / "a.bin"
    victim.write_bytes(b"precious")
    names = iter(["first", "second"])
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: next(names))
    planted = tmp_path / "first".join(TEMPORARY)
    planted.symlink_to(victim)
    write_atomically(path, b"new")
    assert victim.read_bytes() == b"precious" and path.read_bytes() == b"new"
    assert planted.is_symlink() and not (tmp_path / "second".join(TEMPORARY)).exists()


def test_a_link_in_the_place_of_the_file_is_replaced(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "a.bin"
    victim.write_bytes(b"precious")
    path.symlink_to(victim)
    write_atomically(path, b"new")
    assert victim.read_bytes() == b"precious"
    assert path.read_bytes() == b"new" and not path.is_symlink()


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_new_file(mask, tmp_path):
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "a.bin", b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o666 & ~mask


def test_a_name_as_long_as_names_can_be_is_written(tmp_path):
    for name in ("a" * 255, "σ" * 127):
        write_atomically(tmp_path / name, b"new")
    with pytest.raises(OSError, match="a" * 256):
        write_atomically(tmp_path / ("a" * 256), b"new")
    assert len(list(tmp_path.iterdir())) == 2


def test_what_cannot_be_written_names_its_path_and_leaves_all_as_it_was(tmp_path):
    path, folder, file = tmp_path / "a.bin", tmp_path / "folder", tmp_path / "file"
    path.write_bytes(b"old")
    file.write_bytes(b"old")
    folder.mkdir()
    for bad in (folder, file / "below", tmp_path / "nowhere" / "b", Path("/proc/none")):
        with pytest.raises(OSError) as caught:
            write_together({path: b"new", bad: b"new"})
        assert caught.value.filename == str(bad) and ".tmp" not in str(caught.value)
        assert path.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin", "file", "folder"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.bin'"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_file_and_folder_are_on_the_disk_before_the_writer_returns(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def noted(descriptor):
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", noted)
    write_together({tmp_path / "a": b"1", tmp_path / "b": b"2"})
    assert synced == [False, False, True]


@pytest.mark.parametrize(
    "value", [{1: {"a": [1, 2.5, None, "σ"]}}, [], "words", {"reach": float("inf")}]
)
def test_what_json_can_hold_is_held(value):
    assert as_json(value, "card") == as_json(value, "card").strip()


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ({"a": object()}, TypeError, "card must be plain numbers, words and lists, got Object of"),
        ({("a",): 1}, TypeError, "card must be plain numbers"),
        ({"a": torch.ones(1)}, TypeError, "card must be plain numbers"),
        ({"a": 10**5000}, ValueError, "card must be values that JSON can hold"),
        ({"a": "b" * 2**25}, ValueError, "card must have at most 16777216 characters"),
    ],
)
def test_what_json_cannot_hold_is_refused_by_name(value, error, message):
    with pytest.raises(error, match=message):
        as_json(value, "card")


def test_quotes_are_short_and_on_one_line():
    class Rude:
        def __repr__(self):
            raise RuntimeError

    for value in ("a\nb" * 1000, [[[[[1]]]]], dict.fromkeys(range(10**4)), Rude(), 10**5000):
        assert len(shown(value)) < 200 and "\n" not in shown(value)
    assert sentence(ValueError("one\ntwo")) == "one" and sentence(MemoryError()) == "MemoryError"
    assert len(sentence(ValueError("a" * 10**4))) == 400


# --- processes that are killed -----------------------------------------------------------------

KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
import npgd
from npgd.denoisers import save_network
from npgd.networks import DenoisingNetwork, build

folder, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
draw = random.Random(seed)
sizes = {"latent_dim": 3, "width": 8}
spec = {"generator": {"name": "DCGANGenerator", "settings": sizes},
        "encoder": {"name": "Encoder", "settings": {**sizes, "hidden": 8}}}

def prior(value):
    torch.manual_seed(value)
    parts = [build(part["name"], part["settings"]) for part in spec.values()]
    return npgd.GenerativePrior(*parts, 3, (1, 28, 28), str(value))

def denoiser(value):
    torch.manual_seed(value)
    return DenoisingNetwork(8)

kinds = {
    "prior": (prior, lambda made, path: npgd.save_prior(made, path, spec, {"value": made.name}),
              npgd.load_prior),
    "operator": (lambda value: npgd.Gaussian((1, 28, 28), 20, seed=value), npgd.save_operator,
                 npgd.load_operator),
    "denoiser": (denoiser, lambda made, path: save_network(made, path, {"width": 8}),
                 npgd.load_denoiser),
}
whole = old = 0
for number in range(count):
    kind = list(kinds)[number % len(kinds)]
    make, save, load = kinds[kind]
    path = folder / f"{kind}.safetensors"
    made = [make(value) for value in (1, 2)]
    states = []
    for one in made:
        save(one, path)
        states.append(load(path).state_dict())
    ready, begun = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(begun, b"1")
        while True:
            for one in made:
                save(one, path)
    os.read(ready, 1)
    time.sleep(draw.uniform(0, 0.15))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(ready), os.close(begun)
    found = load(path).state_dict()
    same = [all(torch.equal(found[key], state[key]) for key in state) for state in states]
    assert sum(same) == 1, (kind, number, same)
    old += same[0]
    whole += 1
left = [p for p in folder.iterdir() if p.name.startswith(".npgd-")]
others = sorted(p.name for p in folder.iterdir() if p not in left)
assert set(others) <= {f"{k}.safetensors" for k in kinds} | {"prior.json"}, others
print(whole, old, len(left))
"""


def killed(count, seed, folder):
    """Kill `count` writers at seeded moments; how often their target was whole after it."""
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(folder), str(count), str(seed)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    whole, old, left = map(int, done.stdout.split())
    print(f"{count} kills: {whole} whole, of which {old} of the first, {left} temporary files left")
    return whole


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_writer_leaves_the_old_file_or_the_new_one_whole(tmp_path):
    assert killed(9, 0, tmp_path) == 9


@pytest.mark.slow
def test_many_killed_writers_leave_the_old_file_or_the_new_one_whole(tmp_path):
    assert killed(120, 1, tmp_path) == 120


def test_leftovers_of_the_killed_do_no_harm(tmp_path):
    import npgd

    A, path = npgd.MatrixOperator(normal(3, 16), (1, 4, 4)), tmp_path / "a.safetensors"
    (tmp_path / "0123456789abcdef".join(TEMPORARY)).write_bytes(b"half of somethi")
    npgd.save_operator(A, path)
    assert torch.equal(npgd.load_operator(path).matrix, A.matrix)
    assert len(leftovers(tmp_path)) == 1
