"""Outputs: whole or not at all, and nothing is replaced but what a command wrote."""

import errno
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from analysis.commands import output
from analysis.commands.output import LIST, output_directory, output_file

FILES = ["numbers.json", "pictures.npz", *(f"images/{i}.png" for i in range(6))]


def write(path, version, force=True, pause=0.0):
    """An output whose every file says which version it is of."""
    with output_directory(path, force) as folder:
        for name in FILES:
            folder.write(name, (version * 50).encode())
            time.sleep(pause)


def versions(path):
    """The version of every file of an output that is whole."""
    assert set(json.loads((path / LIST).read_text())["files"]) == {*FILES, "images/", LIST}
    found = {(path / name).read_text() for name in FILES}
    assert len([p for p in path.rglob("*") if p.is_file()]) == len(FILES) + 1
    return {text[: len(text) // 50] for text in found}


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_an_output_is_replaced_by_force_alone(tmp_path):
    out = tmp_path / "out"
    write(out, "a", force=False)
    with pytest.raises(FileExistsError, match=r"--output must name nothing .* give --force"):
        write(out, "b", force=False)
    assert versions(out) == {"a"}
    write(out, "b")
    assert versions(out) == {"b"} and names(tmp_path) == ["out"]


def test_an_empty_folder_is_as_none(tmp_path):
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", "a", force=False)
    assert versions(tmp_path / "out") == {"a"}


FOREIGN = {
    "a file beside ours": lambda out: (out / "thesis.tex").write_text("years"),
    "a folder": lambda out: (out / "notes").mkdir(),
    "a file in a folder of ours": lambda out: (out / "images/mine.png").write_text("mine"),
    "a hidden file": lambda out: (out / ".git").write_text("gitdir: x"),
    "a link": lambda out: (out / "link").symlink_to(out.parent),
    "a folder in place of a file": lambda out: [
        (out / "numbers.json").unlink(),
        (out / "numbers.json").mkdir(),
    ],
    "no list": lambda out: (out / LIST).unlink(),
    "a list of something else": lambda out: (out / LIST).write_text('{"files": 3}'),
    "a damaged list": lambda out: (out / LIST).write_bytes(b"\xff"),
}


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("meanwhile", [False, True], ids=["before", "meanwhile"])
def test_what_a_user_put_there_stays_even_by_force(foreign, meanwhile, tmp_path):
    out = tmp_path / "out"
    write(out, "a")
    if not meanwhile:
        FOREIGN[foreign](out)
    before = tree(out)
    with pytest.raises(FileExistsError, match="--output"), output_directory(out, True) as folder:
        folder.write("new", b"new")
        FOREIGN[foreign](out)
        before = tree(out)
    assert tree(out) == before and names(tmp_path) == ["out"]


def tree(folder):
    return {
        str(p): p.read_bytes() if p.is_file() and not p.is_symlink() else p.is_symlink()
        for p in folder.rglob("*")
    }


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_filled_meanwhile_stays(force, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(FileExistsError, match="something new"), output_directory(out, force):
        out.mkdir()
        (out / "thesis.tex").write_text("years")
    assert names(out) == ["thesis.tex"] and names(tmp_path) == ["out"]


def test_an_output_of_another_run_meanwhile_stays(tmp_path):
    """Without locks, too, the later of two runs sees that it is not alone."""
    out, other = tmp_path / "out", tmp_path / "other"
    write(other, "b")
    write(out, "a")
    with pytest.raises(FileExistsError, match="something new"), output_directory(out, True):
        out.rename(tmp_path / "old")
        other.rename(out)
    assert versions(out) == {"b"} and versions(tmp_path / "old") == {"a"}


def test_two_runs_at_once_are_refused(tmp_path):
    out = tmp_path / "out"
    with output_directory(out, False) as folder:
        folder.write("first", b"first")
        with pytest.raises(FileExistsError, match="one run at a time"):
            write(out, "a")
    assert names(out) == [LIST, "first"]


def test_a_link_is_followed_and_its_neighbours_stay(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/neighbour").write_text("mine")
    link = tmp_path / "link"
    link.symlink_to("real/out")
    for version in "ab":
        write(link, version)
        assert link.is_symlink() and versions(tmp_path / "real/out") == {version}
    assert names(tmp_path / "real") == ["neighbour", "out"]
    planted = tmp_path / "planted"
    planted.symlink_to("real")
    with pytest.raises(FileExistsError, match="neighbour"):
        write(planted, "c")


@pytest.mark.parametrize("path", [".", "..", "", "../..", "/"])
def test_the_working_directory_and_what_holds_it_are_refused(path, tmp_path, monkeypatch):
    (tmp_path / "a/b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a/b")
    with pytest.raises(ValueError, match="working directory"):
        write(Path(path), "a")


def test_a_planted_name_beside_the_output_is_not_followed(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/thesis.tex").write_text("years")
    with output_directory(tmp_path / "out", False) as folder:
        part = folder.path
    part.symlink_to("precious")
    write(tmp_path / "out", "a")
    assert names(tmp_path / "precious") == ["thesis.tex"]
    assert names(tmp_path) == ["out", "precious"]


@pytest.mark.parametrize("left", [b"", b'{"npgd": 1, "fil'], ids=["empty", "half"])
def test_a_run_killed_while_it_wrote_its_list_stops_no_other(left, tmp_path):
    with output_directory(tmp_path / "out", False) as folder:
        part = folder.path
    part.mkdir()
    (part / "numbers.json").write_text("{}")
    (part / LIST).write_bytes(left)
    write(tmp_path / "out", "new")
    assert names(tmp_path) == ["out"]


def test_a_disk_that_is_full_is_named_by_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError, match=r"full: '--output .*out/numbers.json'"):
        write(tmp_path / "deep/er/out", "a")
    assert names(tmp_path) == []


def test_a_file_is_replaced_by_its_kind_alone(tmp_path):
    path = tmp_path / "A.safetensors"
    ours = lambda p: p.read_text().startswith("ours")  # noqa: E731

    def put(text, force):
        with output_file(path, force, ours) as file:
            file.write_text(text)

    put("ours 1", False)
    with pytest.raises(FileExistsError, match="give --force"):
        put("ours 2", False)
    put("ours 3", True)
    assert path.read_text() == "ours 3"
    path.write_text("a user's")
    with pytest.raises(FileExistsError, match="of the kind it writes"):
        put("ours 4", True)
    path.unlink()
    with pytest.raises(FileExistsError), output_file(path, False, ours) as file:
        file.write_text("ours 5")
        path.write_text("ours, of another run")
    assert path.read_text() == "ours, of another run" and names(tmp_path) == [path.name]


# --------------------------------------------------------------------------------------- kills


def _write_without_end(out, told, exchange):
    if not exchange:
        output.ctypes.CDLL = None  # as where the system cannot let two folders change places
    told.set()
    version = 0
    while True:
        write(out, str(version % 10), pause=0.0005)
        version += 1


@pytest.mark.parametrize("exchange", [True, False], ids=["in one step", "in three"])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_killed_while_it_writes_leaves_the_old_or_the_new(exchange, seed, tmp_path):
    """40 kills; after each, the next run finds one whole output, and clears the rest up."""
    draw, out = random.Random(seed), tmp_path / "out"
    fork = multiprocessing.get_context("fork")
    left = 0
    write(out, "x")
    for _ in range(40):
        told = fork.Event()
        child = fork.Process(target=_write_without_end, args=(out, told, exchange))
        child.start()
        told.wait()
        time.sleep(draw.uniform(0, 0.04))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        if exchange:  # also where no run follows
            assert len(versions(out)) == 1
        left += len(names(tmp_path)) > 1
        with pytest.raises(InterruptedError), output_directory(out, True):
            assert len(versions(out)) == 1
            raise InterruptedError
        assert len(versions(out)) == 1 and names(tmp_path) == ["out"]
    assert left > 10  # the kills came while something was half done
