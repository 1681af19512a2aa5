"""A training's folder: nothing is lost, nobody else's file is touched, damage is named."""

import errno
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from npgd.networks import DCGANGenerator, Encoder
from npgd.training import (
    CorrectorConfig,
    DenoiserConfig,
    GeneratorConfig,
    OneNetConfig,
    ProjectorConfig,
    load_checkpoint,
    load_generator,
    train_corrector,
    train_denoiser,
    train_generator,
    train_onenet,
    train_projector,
)
from npgd.training.checkpoints import checkpoints, newest_checkpoint, not_finite, tensors_digest
from npgd.training.lock import locked
from npgd.training.loop import Task, generator_for
from npgd.training.processes import is_first

POINTS = {"steps": 12, "batch_size": 4, "visits": 2, "m_low": 5, "m_high": 9, "hidden": 4}
SMALL = {"width": 2, "steps": 12, "batch_size": 4}
CONFIGS = {
    "generator": GeneratorConfig(latent_dim=3, width=4, epochs=6, batch_size=8, coverage=1.0),
    "projector": ProjectorConfig(width=4, **POINTS),
    "corrector": CorrectorConfig(corrections=2, **POINTS),
    "denoiser": DenoiserConfig(**SMALL),
    "onenet": OneNetConfig(**SMALL),
}
KINDS = tuple(CONFIGS)


def start(kind, directory, config=None, every=3):
    """A training of twelve steps on one thread; its end, as its last checkpoint has it."""
    config = config or CONFIGS[kind]
    draw = generator_for(0)
    images = torch.randint(0, 256, (16, 1, 28, 28), generator=draw, dtype=torch.uint8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        g, e = DCGANGenerator(3, 2), Encoder(3, 4, 4)
    told = {"checkpoint_every": every}
    if kind == "generator":
        train_generator(images, directory, config, **told)
    elif kind == "projector":
        train_projector(g, 3, images, directory, config, **told)
    elif kind == "corrector":
        train_corrector(g, e, 3, images, directory, config, **told)
    else:
        train = {"denoiser": train_denoiser, "onenet": train_onenet}[kind]
        train(images, directory, config, **told)
    return load_checkpoint(newest_checkpoint(Path(directory)))


def assert_same(end, other):
    assert end[0] == other[0]
    assert end[1].keys() == other[1].keys()
    assert all(torch.equal(end[1][key], other[1][key]) for key in end[1])


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The end of a training of each kind that nothing happened to, and its folder."""
    torch.set_num_threads(1)
    folders = {kind: tmp_path_factory.mktemp(kind) / "run" for kind in KINDS}
    return {kind: (start(kind, folder), folder) for kind, folder in folders.items()}


def copied(folder, to):
    to.mkdir(parents=True)
    for path in folder.iterdir():
        if path.is_file():
            (to / path.name).write_bytes(path.read_bytes())
    return to


def one_sentence(caught, *names):
    told = str(caught.value)
    assert "\n" not in told and len(told) < 600, told
    assert all(str(name) in told for name in names), told
    return told


# --- not finite -------------------------------------------------------------------------------


class Stopped(Exception):
    pass


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [1, 2, 7])
def test_a_loss_that_is_not_finite_stops_before_anything_of_it_is_saved(
    kind, at, tmp_path, monkeypatch, alone
):
    step = Task.step

    def spoilt(self, i, *rest):
        losses = step(self, i, *rest)
        if i + 1 >= at:
            for network in self.networks.values():
                for parameter in network.parameters():
                    parameter.data.fill_(torch.nan)
            losses |= {next(iter(losses)): torch.tensor(torch.nan)}
        return losses

    with monkeypatch.context() as patch:
        patch.setattr(Task, "step", spoilt)
        with pytest.raises(FloatingPointError) as caught:
            start(kind, tmp_path, every=2)
    told = one_sentence(caught, f"at step {at}", "the loss", "got nan")
    kept = checkpoints(tmp_path)
    for path in kept:
        load_checkpoint(path)
    newest = (at - 1) // 2 * 2
    assert ([load_checkpoint(p)[0] for p in kept] or [0])[-1] == newest
    assert (str(newest_checkpoint(tmp_path)) if newest else "no checkpoint has been") in told
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert "NaN" not in "".join(lines)
    assert_same(start(kind, tmp_path, every=2), alone[kind][0])  # nothing spoilt was kept


@pytest.mark.parametrize("part", ["weights", "average", "moments"])
def test_a_state_that_is_not_finite_is_not_saved_though_every_loss_is(part, tmp_path, monkeypatch):
    step = Task.step

    def spoilt(self, i, *rest):
        losses = step(self, i, *rest)
        if i == 7:
            if part == "moments":
                moments = next(iter(next(iter(self.optimisers.values())).state.values()))
                moments["exp_avg"][0] = torch.inf
            else:
                network = self.networks["average" if part == "average" else "denoiser"]
                next(network.parameters()).data[0] = -torch.inf
        return {name: torch.ones(()) for name in losses}

    monkeypatch.setattr(Task, "step", spoilt)
    with pytest.raises(FloatingPointError) as caught:
        start("denoiser", tmp_path, every=1)
    told = one_sentence(caught, "must be finite", "step 8", newest_checkpoint(tmp_path))
    assert ("optimiser/" if part == "moments" else "network/") in told
    assert [load_checkpoint(path)[0] for path in checkpoints(tmp_path)] == [6, 7]


DIVERGING = [
    ("denoiser", {"learning_rate": 1e6}),
    ("onenet", {"learning_rate": 1e6, "classifier_rate": 1e6}),
    ("onenet", {"denoising": 1e6, "learning_rate": 1e5}),
    ("projector", {"learning_rate": 1e6}),
    ("generator", {"learning_rate": 1e6}),
    ("generator", {"learning_rate": 1e5, "coverage": 1e6}),
]


@pytest.mark.parametrize(("kind", "change"), DIVERGING)
def test_the_advice_of_a_diverged_training_works(kind, change, tmp_path):
    """Followed to the letter: another folder, and the settings that the message names."""
    config = replace(CONFIGS[kind], **change)
    try:
        start(kind, tmp_path / "0", config, every=4)
    except FloatingPointError as error:
        told = str(error)
    else:
        pytest.skip("it stayed finite")
    for path in checkpoints(tmp_path / "0"):
        assert not_finite(load_checkpoint(path)[1]) is None
    for again in range(2):  # the same call again says the same
        with pytest.raises(FloatingPointError) as caught:
            start(kind, tmp_path / "0", config, every=4)
        assert str(caught.value).partition(";")[0] == told.partition(";")[0], again
    advice = told.rpartition("begin again in another directory with ")[2]
    settings = {k: float(v) for k, v in re.findall(r"(\w+) = (\S+?)(?:,|$)", advice)}
    assert settings
    start(kind, tmp_path / "1", replace(config, **settings), every=4)


def test_a_checkpoint_with_nan_from_before_is_passed_over(tmp_path, alone):
    end, folder = alone["denoiser"]
    there = copied(folder, tmp_path / "run")
    newest = newest_checkpoint(there)
    tensors = {k: torch.full_like(v, torch.nan) for k, v in load_checkpoint(newest)[1].items()}
    save_file(tensors, newest, {"step": "12", "sha256": tensors_digest(tensors)})
    with pytest.raises(ValueError, match="NaN or infinity"):
        load_checkpoint(newest)
    with pytest.warns(UserWarning, match="going back to the checkpoint before it"):
        assert_same(start("denoiser", there), end)


# --- names ------------------------------------------------------------------------------------

OTHERS = (
    "checkpoint-best.safetensors",
    "checkpoint-00000004-backup",
    "checkpoint-00000004-backup.safetensors",
    "checkpoint-000000004.safetensors",
    "checkpoint-4.safetensors",
    "checkpoint-00000004.safetensors.bak",
    "checkpoint-99999999999999.safetensors",
    "Checkpoint-00000099.safetensors",
    "checkpoint-\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0664.safetensors",
    "checkpoint--0000004.safetensors",
    "checkpoint-.safetensors",
    "checkpoint-00000099.safetensors\n",
    " checkpoint-00000099.safetensors",
    "checkpoint-00000099 (1).safetensors",
    "checkpoint-best",
    "notes.txt",
    ".lock.bak",
    "log.jsonl.old",
    "config.json~",
    ".thesis.tex.123.tmp",
    "thesis.tex",
    "prior.safetensors",
    ".checkpoint-best.safetensors.12.tmp",
    "samples.png",
)


def test_files_of_other_names_are_neither_taken_nor_touched(tmp_path, alone):
    end, _ = alone["denoiser"]
    (tmp_path / "samples").mkdir()
    folders = [tmp_path / "checkpoint-00000099.safetensors", tmp_path / "samples" / "mine"]
    for folder in folders:
        folder.mkdir()
        (folder / "keep").write_text("mine")
    for name in OTHERS:
        (tmp_path / name).write_bytes(b"mine")
        (tmp_path / "samples" / name).write_bytes(b"mine")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(start("denoiser", tmp_path, every=1), end)
        start("denoiser", tmp_path, every=1)
    for name in OTHERS:
        assert (tmp_path / name).read_bytes() == b"mine", name
        assert (tmp_path / "samples" / name).read_bytes() == b"mine", name
    assert all((folder / "keep").read_text() == "mine" for folder in folders)
    assert [p.name for p in checkpoints(tmp_path)] == [
        "checkpoint-00000011.safetensors",
        "checkpoint-00000012.safetensors",
    ]


# --- the lock ---------------------------------------------------------------------------------

HOLDING = """
import sys, time
from pathlib import Path
from npgd.training.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holding(directory):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(directory)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_training_in_a_folder_is_refused_and_a_killed_one_blocks_nobody(tmp_path, alone):
    process = holding(tmp_path)
    with pytest.raises(ValueError, match="free of other trainings") as caught:
        start("denoiser", tmp_path)
    one_sentence(caught, tmp_path, f"process {process.pid}")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "samples"]
    process.kill()
    process.communicate()
    assert (tmp_path / ".lock").read_text() == f"{process.pid}\n"  # stale, and harmless
    assert_same(start("denoiser", tmp_path), alone["denoiser"][0])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"1\n", b"-7", b"9" * 99, b"x\0y"])
def test_whatever_a_lock_file_holds_it_is_taken(content, tmp_path):
    (tmp_path / ".lock").write_bytes(content)
    with locked(tmp_path), pytest.raises(ValueError, match=f"process {os.getpid()} "):
        locked(tmp_path).__enter__()
    with locked(tmp_path):
        pass


def test_of_threads_that_start_together_one_trains_and_the_others_are_told(tmp_path, alone):
    told, ready = [], threading.Barrier(6)

    def run():
        ready.wait()
        try:
            start("denoiser", tmp_path)
            told.append("trained")
        except ValueError as error:
            told.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "trained" in told
    assert all(t == "trained" or "free of other trainings" in t for t in told)
    assert_same(load_checkpoint(newest_checkpoint(tmp_path)), alone["denoiser"][0])


# --- damage -----------------------------------------------------------------------------------


def damaged(content, draw):
    """Bytes cut, flipped, overwritten, doubled, or replaced by something else."""
    content = bytearray(content)
    match draw.randrange(7):
        case 0:
            return bytes(content[: draw.randrange(len(content) + 1)])
        case 1:
            for _ in range(draw.randrange(1, 4)):
                content[draw.randrange(min(len(content), 2000))] ^= 1 << draw.randrange(8)
        case 2:
            at = draw.randrange(len(content))
            content[at : at + 8] = draw.randbytes(8)
        case 3:
            content += content[: draw.randrange(len(content))]
        case 4:
            return draw.randbytes(draw.randrange(200))
        case 5:
            at = draw.randrange(len(content))
            del content[at : at + draw.randrange(1, 9)]
        case 6:
            odd = (
                b"",
                b"null",
                b"[]",
                b"{}",
                b"3",
                b'"x"',
                b"NaN",
                b"[" * 10**5,
                b"\xff\xfe",
                b"\0" * 64,
            )
            return draw.choice(odd)
    return bytes(content)


SETTINGS = (None, True, -1, 0, 1e9, 10**30, "x", [], {}, 2.5, 3, float("nan"), 999, "sagan", 64)


def other_settings(config, draw):
    """A run's config.json with settings removed or replaced."""
    for name in draw.sample(sorted(config), draw.randrange(1, 3)):
        if draw.random() < 0.4:
            del config[name]
        else:
            config[name] = draw.choice(SETTINGS)
    if draw.random() < 0.2:
        config["more"] = draw.choice(SETTINGS)
    return json.dumps(config).encode()


def tried(kind, folder, end):
    """Go on with a run that somebody has damaged: the same bits, or one sentence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            now = start(kind, folder)
        except (ValueError, OSError) as error:
            told = str(error)
            assert str(folder) in told and "\n" not in told and len(told) < 700, told
            return told
        except FloatingPointError as error:
            raise AssertionError(error) from error
    assert_same(now, end)
    return ""


def read(folder):
    try:
        load_generator(folder)
    except (ValueError, OSError) as error:
        told = str(error)
        assert str(folder) in told and "\n" not in told and len(told) < 700, told


@pytest.mark.parametrize("many", [4, pytest.param(140, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["generator", "denoiser"])
@pytest.mark.parametrize("file", ["config.json", "log.jsonl", "checkpoint", "settings"])
def test_damaged_runs_go_on_to_the_same_bits_or_say_one_sentence(many, kind, file, alone, tmp_path):
    end, folder = alone[kind]
    for seed in range(many):
        draw = random.Random(f"{kind} {file} {seed}")
        there = copied(folder, tmp_path / str(seed))
        name = {"settings": "config.json", "checkpoint": newest_checkpoint(there).name}.get(
            file, file
        )
        content = (there / name).read_bytes()
        if file == "settings":
            content = other_settings(json.loads(content), draw)
        else:
            content = damaged(content, draw)
        (there / name).write_bytes(content)
        if kind == "generator":
            read(there)
        tried(kind, there, end)


@pytest.mark.parametrize("name", ["config.json", "log.jsonl", ".lock", "samples"])
@pytest.mark.parametrize("instead", ["a folder", "a dangling link", "a file"])
def test_something_else_in_the_place_of_a_file_is_named(name, instead, tmp_path, alone):
    end, folder = alone["denoiser"]
    there = copied(folder, tmp_path / "run")
    path = there / name
    path.unlink(missing_ok=True)
    if instead == "a folder":
        path.mkdir()
        (path / "keep").write_text("mine")
    elif instead == "a dangling link":
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.write_bytes(b"\xff mine")
    told = tried("denoiser", there, end)
    if instead == "a folder" and name != "samples":
        assert told and (path / "keep").read_text() == "mine"
    if name == "samples" and instead == "a file":
        assert "File exists" in told and path.read_bytes() == b"\xff mine"


def test_checkpoints_of_another_network_are_named_and_stay(tmp_path, alone):
    _, folder = alone["denoiser"]
    foreign = {kind: newest_checkpoint(alone[kind][1]) for kind in KINDS if kind != "denoiser"}
    start("denoiser", tmp_path / "wide", replace(CONFIGS["denoiser"], width=3))
    foreign["wide"] = newest_checkpoint(tmp_path / "wide")
    with safe_open(newest_checkpoint(folder), "pt") as file:
        own = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    changed = {
        "double": {key: value.double() for key, value in own.items()},
        "less": dict(list(own.items())[1:]),
        "more": own | {"network/other/weight": torch.zeros(1)},
        "odd": own | {"optimiser/denoiser/x/exp_avg": torch.zeros(1)},
        "turned": {k: v.flatten() for k, v in own.items()},
        "empty": {},
    }
    for name, tensors in changed.items():
        foreign[name] = tmp_path / f"{name}.safetensors"
        metadata = {"step": "12", "sha256": tensors_digest(tensors)}
        save_file({k: v.contiguous() for k, v in tensors.items()}, foreign[name], metadata)
    for name, path in foreign.items():
        there = copied(folder, tmp_path / f"run-{name}")
        newest = newest_checkpoint(there)
        newest.write_bytes(path.read_bytes())
        with pytest.raises(ValueError, match="must be a checkpoint of this training") as caught:
            start("denoiser", there)
        one_sentence(caught, newest, "another directory")
        assert newest.read_bytes() == path.read_bytes()


def test_a_checkpoint_whose_header_lies_is_passed_over(tmp_path, alone):
    end, folder = alone["denoiser"]
    tensors = load_checkpoint(newest_checkpoint(folder))[1]
    digest = tensors_digest(tensors)
    for i, header in enumerate(
        [None, {}, {"step": "12"}, {"sha256": digest}, {"step": "x", "sha256": digest},
         {"step": "-3", "sha256": digest}, {"step": "9" * 500, "sha256": digest},
         {"step": "11", "sha256": digest}, {"step": "12", "sha256": "0" * 64}]
    ):  # fmt: skip
        there = copied(folder, tmp_path / str(i))
        save_file(tensors, newest_checkpoint(there), header)
        with pytest.warns(UserWarning, match="going back"):
            assert_same(start("denoiser", there), end)


def test_checkpoints_without_their_settings_are_not_overwritten(tmp_path, alone):
    there = copied(alone["denoiser"][1], tmp_path / "run")
    (there / "config.json").unlink()
    before = {path: path.read_bytes() for path in checkpoints(there)}
    with pytest.raises(ValueError, match=r"must hold config\.json beside its checkpoints"):
        start("denoiser", there)
    assert {path: path.read_bytes() for path in checkpoints(there)} == before


# --- disks ------------------------------------------------------------------------------------


NAMES = ("ENOSPC", "EROFS", "EACCES", "EIO", "EDQUOT", "EPERM", "ENODEV")


@pytest.mark.parametrize(("write", "name"), list(enumerate(NAMES, 1)), ids=NAMES)
def test_a_disk_that_fails_says_one_sentence_and_keeps_the_newest_checkpoint(
    name, write, tmp_path, monkeypatch, alone
):
    sync, done, code = os.fsync, [], getattr(errno, name)

    def failing(descriptor):
        done.append(1)
        if len(done) >= write:
            raise OSError(code, os.strerror(code))
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(OSError) as caught:
            start("denoiser", tmp_path)
    told = one_sentence(caught, tmp_path, os.strerror(code), "must be a folder to write into")
    assert caught.value.errno == code
    for path in checkpoints(tmp_path):
        load_checkpoint(path)
    newest = newest_checkpoint(tmp_path)
    assert (str(newest) if newest else "no checkpoint has been written") in told
    assert not list(tmp_path.glob(".*tmp"))
    assert_same(start("denoiser", tmp_path), alone["denoiser"][0])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_log_on_a_full_disk_is_named(tmp_path, alone):
    there = copied(alone["denoiser"][1], tmp_path / "run")
    for path in checkpoints(there):
        path.unlink()
    (there / "config.json").unlink()
    opened = open
    with pytest.MonkeyPatch.context() as patch:
        full = lambda path, *rest, **more: opened(  # noqa: E731
            "/dev/full" if "a" in rest else path, *rest, **more
        )
        patch.setattr("npgd.training.loop.open", full, raising=False)
        with pytest.raises(OSError) as caught:
            start("denoiser", there)
    one_sentence(caught, there, "No space left on device")


def test_a_file_or_a_long_name_for_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    for bad in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        with pytest.raises((ValueError, OSError)) as caught:
            start("denoiser", bad)
        one_sentence(caught, "directory must be")
    assert (tmp_path / "file").read_text() == "mine"


# --- several processes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "rank", "first"),
    [(None, None, True), (None, "3", True), ("1", "3", True), ("2", "0", True), ("2", "1", False)],
)
def test_one_process_writes_and_speaks_whatever_else_is_set(count, rank, first, monkeypatch):
    for name, value in (("WORLD_SIZE", count), ("RANK", rank)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert is_first() == first


SPOILT = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
import test_runs
from npgd.training.loop import Task
step, moment = Task.step, sys.argv[3]

def spoilt(self, i, *rest):
    losses = step(self, i, *rest)
    rank = torch.distributed.get_rank()
    if moment == "a loss" and i == 3 and rank == 1:
        losses[next(iter(losses))] = torch.tensor(torch.nan)
    return losses

Task.step = spoilt
try:
    test_runs.start("denoiser", sys.argv[2], every=1)
except (ValueError, FloatingPointError) as error:
    sys.exit(f"error: {error}")
"""


@pytest.mark.parametrize("moment", ["a loss", "the settings"])
def test_of_several_processes_the_first_says_what_is_wrong_and_all_end(moment, tmp_path):
    pytest.importorskip("accelerate", reason="the optional dependency accelerate is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if moment == "the settings":
        (tmp_path / "config.json").write_text("[")
    running = []
    for rank in range(2):
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
        told |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": 1}
        environment = os.environ | {key: str(value) for key, value in told.items()}
        here = str(Path(__file__).parent)
        command = [sys.executable, "-c", SPOILT, here, str(tmp_path), moment]
        running.append(
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        )
    said = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [1, 1]
    errors = [line for line in "".join(said).splitlines() if "error:" in line]
    if moment == "a loss":
        (error,) = errors
        assert "must be finite" in error and "step 4" in error
        assert [load_checkpoint(path)[0] for path in checkpoints(tmp_path)] == [2, 3]
    else:
        (error,) = errors
        assert "config.json must be the settings of a training" in error
    assert "Traceback" not in "".join(said)


@pytest.mark.slow
def test_what_torchrun_starts_twice_is_said_once(tmp_path, digits):
    pytest.importorskip("accelerate", reason="the optional dependency accelerate is not installed")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "npgd"]
    command += ["train", "denoiser", "--steps", "3", "--batch-size", "4"]
    command += ["--output", str(tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written:") == 1


# --- kills ------------------------------------------------------------------------------------

SERVER = """
import os, random, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_runs
from npgd.training import checkpoints, loop

COUNTED = (
    (os, "fsync"), (os, "replace"), (Path, "unlink"), (loop, "save_grid"), (loop._Log, "add"),
    (loop, "save_checkpoint"), (checkpoints, "state"), (checkpoints, "load_state"),
    (loop.Task, "step"), (loop.Average, "update"),
)
left = 0

def passed():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def counted(function):
    def before_and_after(*arguments, **named):
        passed()
        made = function(*arguments, **named)
        passed()
        return made
    return before_and_after

for module, name in COUNTED:
    setattr(module, name, counted(getattr(module, name)))
for line in sys.stdin:
    kind, seed, directory = line.rstrip().split(" ", 2)
    child = os.fork()
    if child == 0:
        left = random.Random(f"{kind} {seed}").randrange(1, 120)
        test_runs.torch.set_num_threads(1)
        test_runs.start(kind, directory)
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def trainings_that_are_killed():
    """Trains in a process of its own, killed before or after one of the things that it does.

    The process is forked off one that has imported everything, for speed.
    """
    here = str(Path(__file__).parent)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, here],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip

    def killed(kind, seed, directory):
        server.stdin.write(f"{kind} {seed} {directory}\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, status
        return status != 0

    yield killed
    server.stdin.close()
    server.wait()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize(
    ("kind", "seeds"),
    [
        *[pytest.param(kind, range(1), id=kind) for kind in KINDS],
        *[pytest.param(k, range(1, 13), id=f"{k}-many", marks=pytest.mark.slow) for k in KINDS],
    ],
)
def test_a_training_killed_at_any_moment_ends_with_the_same_bits(
    kind, seeds, tmp_path, alone, trainings_that_are_killed
):
    end, folder = alone[kind]
    kills = 0
    for seed in seeds:
        there = tmp_path / str(seed)
        for again in range(3):
            if not trainings_that_are_killed(kind, f"{seed}/{again}", there):
                break
            kills += 1
            for path in checkpoints(there):
                load_checkpoint(path)
        assert_same(start(kind, there), end)
        assert (there / "log.jsonl").read_bytes() == (folder / "log.jsonl").read_bytes()
        assert sorted(p.name for p in there.rglob("*")) == sorted(p.name for p in folder.rglob("*"))
    assert kills >= len(seeds)
    print(f"{kind}: {kills} kills")
