"""Command lines that are wrong or odd: one sentence that names the option, and nothing is touched.

The lines are drawn from tables of faults with a seed; `-m slow` draws many more.
"""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import analysis
import npgd
import npgd_command
from analysis.commands import app, recover, train
from analysis.commands.terminal import printable

runner = CliRunner()
HUGE, LONG = "1" + "0" * 400, "a" * 5000

NO_INTEGER = ["", "many", "1.5", "nan", "1e3", "[/b]", "\x1b[31m", "½"]
NO_NUMBER = ["", "loud", "[bold]", "1,5", "\x1b[2J"]
NOT_FINITE = ["nan", "inf", "-inf", "1e999"]
NO_FILE = ["/nowhere/at/all", LONG, "[/foo]", "\x1b[31mred", "a\nb", "loop", "\udcff"]
NO_OUTPUT = [".", "..", "", "/", "../work", "full", "full/thesis.tex", "full/thesis.tex/inside",
             "to-full", "loop", "loop/inside", "a" * 300, "/proc/no/out", "/dev/null"]  # fmt: skip

MEASURED = {
    "--m": [*NO_INTEGER, "0", "-1", "785", "9999", HUGE],
    "--noise": [*NO_NUMBER, *NOT_FINITE, "-1"],
    "--step-size": [*NO_NUMBER, *NOT_FINITE, "0", "-1", "AUTO"],
    "--max-iter": [*NO_INTEGER, "0", "-1", HUGE],
    "--count": [*NO_INTEGER, "0", "-1", str(10**12), HUGE],
    "--seed": [*NO_INTEGER, "-1", str(2**64), HUGE],
    "--device": ["", "abacus", "cuda:99", "meta", "[/b]", "cpu:cpu", "\x1b[31m"],
    "--prior": ["", "nonsense", "MNIST", "notes.txt", "broken.safetensors", "A.safetensors",
                "full", *NO_FILE],
    "--operator": ["", "notes.txt", "broken.safetensors", "other.safetensors", "full", *NO_FILE],
    "--images": ["empty", "notes.txt", "broken.zip", "empty.zip", *NO_FILE],
    "--dataset": ["", "celeba", "church", "MNIST", "[/b]"],
    "--task": ["", "CS", "denoising", "[/b]"],
    "--hole": ["0", "5", "-1", *NO_INTEGER],  # 5 is a hole's, but the task is cs
    "--boxes": ["1", "-1", HUGE, *NO_INTEGER],
    "--box-side": ["1", "-1", HUGE, *NO_INTEGER],
    "--factor": ["2", "0", "-1", HUGE, *NO_INTEGER],
    "--sigma": ["1.5", "-1", *NO_NUMBER, *NOT_FINITE],
    "--acceleration": ["2", "-1", *NO_NUMBER, *NOT_FINITE],
    "--angles": ["3", "0", HUGE, *NO_INTEGER],
    "--output": NO_OUTPUT,
    "--nosuch": ["x"],
}  # fmt: skip
DESIGNED = {
    "--m": MEASURED["--m"],
    "--points": [*NO_INTEGER, "0", "1", "-1"],
    "--delta": ["0.2", *NO_NUMBER],  # secant PCA has none
    "--method": ["", "PCA", "[/b]"],
    "--output": [
        f"{name}.safetensors" for name in (LONG, "loop/in", "full/thesis.tex/in", "other", "broken")
    ]
    + [*NO_OUTPUT, "full.txt", ".safetensors"],
} | {option: MEASURED[option] for option in ("--prior", "--images", "--dataset", "--seed")}
THEORY = {
    "--alpha": [*NO_NUMBER, *NOT_FINITE, "0", "-1", "3"],
    "--beta": [*NO_NUMBER, *NOT_FINITE, "0", "-1", "0.5"],
    "--n-iter": [*NO_INTEGER, "0", "-1", HUGE],
    "--step-size": [*NO_NUMBER, *NOT_FINITE, "-1"],
    "--delta": [*NO_NUMBER, *NOT_FINITE, "-1"],
    "--noise": [*NO_NUMBER, *NOT_FINITE, "-1"],
    "--certificate": ["", "/", "full", "notes.txt", "full/thesis.tex/inside", "loop", "a" * 300],
}
PREDICTED = {
    "--m": ["", "many", "20;50", "0", "20,-1", "2.5", "20,,50", HUGE,
            ",".join(map(str, range(1, 300)))],
    "--noise": [*NO_NUMBER, *NOT_FINITE, "-1"],
} | {
    option: MEASURED[option]
    for option in ("--prior", "--images", "--dataset", "--count", "--seed", "--device", "--output")
}  # fmt: skip
TRAINED = {
    "--threads": ["0", "-1", HUGE, *NO_INTEGER],
    "--checkpoint-every": ["0", "-1", *NO_INTEGER],
    "--output": ["full/thesis.tex", "taken", "loop"],
    "--device": MEASURED["--device"],
    "--dataset": ["", "cifar"],
    "--steps": NO_INTEGER,
    "--learning-rate": NO_NUMBER,
}
FAULTS = {
    ("recover",): MEASURED | {"--refine": ["-1", "7", *NO_INTEGER]},
    ("verify",): MEASURED | {"--max-iter": ["1", "0", "-1", *NO_INTEGER]},
    ("predict",): PREDICTED,
    ("design",): DESIGNED,
    ("worst-case",): THEORY,
    ("figures",): {"NAMES": ["nosuch", "[/b]", LONG, "\x1b[31m"], "--output": ["full/thesis.tex"]},
    ("derive",): {"--nosuch": [""]},
    ("train", "projector"): TRAINED | {"--generator": ["full", "notes.txt", *NO_FILE]},
    ("train", "corrector"): TRAINED | {"--prior": MEASURED["--prior"]},
    ("train", "denoiser"): TRAINED | {"--also": TRAINED["--dataset"]},
    ("recoverr",): {"recoverr": ["x"]},
    ("[/b]",): {"[/b]": ["x"]},
}  # fmt: skip
BASE = {
    ("recover",): ["--count", "1", "--max-iter", "1", "--step-size", "1"],
    ("verify",): ["--count", "1"],
    ("predict",): ["--m", "9", "--count", "1"],
    ("design",): ["--m", "3", "--no-check", "--points", "9", "--output", "new.safetensors"],
    ("worst-case",): ["--alpha", "1", "--beta", "1.5"],
    ("train", "projector"): ["--generator", "g", "--output", "new"],
    ("train", "corrector"): ["--output", "new"],
    ("train", "denoiser"): ["--output", "new"],
}


def lines(seed):
    """An endless draw of bad lines: the arguments, and the option at fault."""
    draw = random.Random(seed)
    while True:
        command = draw.choice(list(FAULTS))
        option = draw.choice(list(FAULTS[command]))
        value = draw.choice(FAULTS[command][option])
        fault = [option, value] if option.startswith("--") else [value]
        yield [*command, *BASE.get(command, []), *fault], option


@dataclass
class Report:
    """What stands in for a report, which takes a minute."""

    command: dict | None = None
    screen, numbered = "Nothing [/b] limits.", "All is [/b] well."

    def table(self):
        return "a [bold]table"

    def write(self, directory, made):
        for name in ("report.html", "report.json", "summary.txt"):
            (directory / name).write_text(json.dumps({"made": made}))


@pytest.fixture(scope="module")
def prior():
    return npgd.load_prior("mnist")


@pytest.fixture
def place(tmp_path, monkeypatch, prior):
    """A folder of things that can be named by mistake, with what takes long replaced."""
    work = tmp_path / "work"
    (work / "full").mkdir(parents=True)
    (work / "full/thesis.tex").write_text("years of work")
    (work / "full/results.json").write_text("{}")
    (work / "taken").mkdir()
    for name in ("prior", "denoiser"):
        (work / f"taken/{name}.safetensors").write_text("a user's")
    (work / "empty").mkdir()
    (work / "pictures").mkdir()
    for name in ("[b]", "\x1b[31mred", "a b (1)"):
        Image.fromarray(np.full((28, 28), 90, np.uint8)).save(work / f"pictures/{name}.png")
    (work / "pictures/[broken].png").write_text("broken")
    (work / "notes.txt").write_text("a note")
    (work / "broken.safetensors").write_text("broken")
    (work / "broken.zip").write_text("broken")
    zipfile.ZipFile(work / "empty.zip", "w").close()
    (work / "loop").symlink_to("loop")
    (work / "to-full").symlink_to("full")
    npgd.save_operator(npgd.Gaussian((1, 28, 28), m=3), work / "A.safetensors")
    (work / "other.safetensors").write_bytes(b"{}")
    monkeypatch.chdir(work)
    monkeypatch.setenv("COLUMNS", "200")
    load = npgd.load_prior
    loaded = lambda name, **told: prior if name == "mnist" else load(name, **told)  # noqa: E731
    monkeypatch.setattr(npgd, "load_prior", loaded)
    monkeypatch.setattr(analysis, "verify", lambda *_, **__: Report())
    for name in ("secant_pca", "dct", "minimax", "numax"):
        made = lambda *_, **__: npgd.Gaussian((1, 28, 28), m=3)  # noqa: E731
        monkeypatch.setattr(analysis, f"design_{name}", made)
    return work


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    """A training that is let begin is a fault."""

    def begun(*_, **__):
        raise AssertionError("a training has begun")

    for name in ("generator", "projector", "corrector", "denoiser", "onenet"):
        monkeypatch.setattr(train, f"train_{name}", begun)
    monkeypatch.setattr(train.data, "dataset_uint8", begun)


def tree(folder):
    """All that lies in a folder, with contents and links."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(root, name)
            kept = path.is_file() and not path.is_symlink()
            found[str(path)] = path.read_bytes() if kept else path.is_symlink()
    return found


def check(arguments, option, place):
    before = tree(place.parent)
    done = runner.invoke(app, arguments)
    said = f"{arguments}: {done.exit_code}\n{done.stderr}{done.exception!r}"
    said = said.replace(LONG, "LONG").replace(HUGE, "HUGE")
    assert done.exit_code in (1, 2), said
    assert isinstance(done.exception, SystemExit), said
    told = [line for line in done.stderr.split("\n") if line and not line.startswith("warning: ")]
    assert len(told) == 1 and told[0].startswith("error: "), said
    assert "Traceback" not in done.output and "\x1b" not in done.output, said
    assert "unforeseen" not in told[0] and len(told[0]) < 1000, said
    assert option.isupper() or option in told[0] or option.lstrip("-") in told[0], said
    assert tree(place.parent) == before, said


def drawn(seed, count, place):
    seen = set()
    for arguments, option in lines(seed):
        if (line := tuple(arguments)) not in seen:
            seen.add(line)
            check(arguments, option, place)
        if len(seen) == count:
            return


def test_a_bad_line_is_one_sentence_that_names_the_option_and_touches_nothing(place):
    drawn(0, 200, place)


@pytest.mark.slow
@pytest.mark.parametrize("command", FAULTS, ids=" ".join)
def test_every_bad_line(command, place):
    """All of the tables."""
    for option, values in FAULTS[command].items():
        for value in values:
            fault = [option, value] if option.startswith("--") else [value]
            check([*command, *BASE.get(command, []), *fault], option, place)


# ------------------------------------------------------------------- odd, and right all the same


ODD = [
    "o[/b]",
    "[bold]x",
    "o :smile:",
    "\x1b[31mred",
    "ü ñ 漢",
    "a b",
    "\u202egpj",
    "o\udcff",
    "--x",
]


PICTURES = ["\x1b[31mred.png", "[b].png", "a b (1).png"]


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_a_name_is_printed_as_it_is_and_steers_nothing(name, place):
    for command, file in (("recover", "results.json"), ("verify", "report.json")):
        output = Path(command) / name  # short, so that no line is broken
        asked = ["--images", "pictures", "--count", "9", "--output", str(output)]
        done = runner.invoke(app, [command, *BASE[command,], *asked])
        assert done.exit_code == 0, done.output
        assert f"written: {printable(str(output))}/re" in done.stdout
        assert "\x1b" not in done.output and "[broken].png" in done.stderr
        numbers = json.loads((output / file).read_text())
        made = numbers.get("made", numbers)
        assert made["sources"] == PICTURES and list(made["skipped"]) == ["[broken].png"]
        assert made["command_line"].startswith(f"npgd {command} --count 1")


def test_written_images_carry_their_sources_names(place):
    done = runner.invoke(app, ["recover", *BASE["recover",][2:], "--images", "pictures"])
    assert done.exit_code == 0, done.output
    numbers = json.loads(Path("recovered/results.json").read_text())
    written = ["images/0000-__31mred.png", "images/0001-_b_.png", "images/0002-a b (1).png"]
    assert numbers["sources"] == PICTURES and numbers["written"] == written
    assert sorted(str(p) for p in Path("recovered").glob("images/*")) == [
        f"recovered/{name}" for name in written
    ]
    assert numbers["images"] == "3 pictures in pictures" and numbers["dtype"] == "float32"


def test_colour_pictures_are_said_with_the_prior_that_fits(place):
    Image.new("RGB", (30, 30), (255, 0, 0)).save("empty/red.png")
    done = runner.invoke(app, ["recover", *BASE["recover",], "--images", "empty/red.png"])
    assert done.exit_code == 0, done.output
    assert "--prior celeba or church would fit" in done.stderr


def through_main(arguments, monkeypatch, encoding="utf-8", stdout=None):
    """The command as it is installed; status, standard output and error."""
    out, err = stdout or io.BytesIO(), io.BytesIO()
    monkeypatch.setattr(sys, "argv", ["npgd", *arguments])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding=encoding))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding=encoding))
    with pytest.raises(SystemExit) as ended:
        npgd_command.main()
    streams = sys.stdout, sys.stderr
    monkeypatch.undo()
    streams[1].flush()
    return ended.value.code, out.getvalue().decode(encoding), err.getvalue().decode(encoding)


def test_characters_that_the_terminal_has_not_are_replaced(place, monkeypatch):
    arguments = ["recover", *BASE["recover",], "--output", str(place / "out")]
    status, out, err = through_main(arguments, monkeypatch, "cp1252")
    assert status == 0 and "written: " in out and err == ""


def test_ctrl_c_is_a_line_at_work_and_while_importing(place, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    before = npgd_command.signal.getsignal(npgd_command.signal.SIGINT)
    for where, name in ((recover, "load_prior"), (npgd_command, "ours")):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, stop)
            status, out, err = through_main(["recover"], patch)
        npgd_command.signal.signal(npgd_command.signal.SIGINT, before)
        assert (status, out, err) == (130, "", "stopped: Ctrl-C\n")
    assert not (place / "recovered").exists()


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (OSError(30, "Read-only file system", "/x"), 2, "/x cannot be read or written: Read-only"),
        (MemoryError(), 1, "must fit in memory"),
        (ModuleNotFoundError("No module named 'lmdb'", name="lmdb"), 1, "the package lmdb must be"),
        (RuntimeError("CUDA error:\n out of luck"), 1, "CUDA error: out of luck"),
        (FloatingPointError("a loss is not finite"), 1, "a loss is not finite"),
        (KeyError("width"), 1, "unforeseen happened, KeyError: 'width'"),
        (AssertionError(), 1, "unforeseen happened, AssertionError"),
        (ValueError("m must be [/b], got \x1b[31m"), 2, "--m must be [/b], got \\x1b[31m"),
        (RuntimeError("x" * 10**6), 1, "xxx…"),
    ],
    ids=str,
)
def test_whatever_fails_is_one_line_and_leaves_nothing(error, status, told, place, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(recover, "load_prior", fail)
    before = tree(place)
    done = runner.invoke(app, ["recover", "--output", "a/b/out"])
    assert done.exit_code == status and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and told in line and len(line) < 800
    assert tree(place) == before


def test_the_traceback_is_there_for_who_asks(place, monkeypatch):
    monkeypatch.setenv("NPGD_TRACEBACK", "1")
    done = runner.invoke(app, ["recover", "--m", "0"])
    assert done.exit_code == 2 and "Traceback" in done.stderr


@pytest.mark.slow
def test_ctrl_c_at_any_moment_is_no_traceback(tmp_path):
    """Interrupts of the command as a process of its own, most of them while it imports."""
    draw, told = random.Random(0), []
    lines = (["train", "denoiser", "--help"], ["recover", "--output", "out"], ["derive"])
    for _ in range(20):
        command = [sys.executable, "-m", "npgd_command", *draw.choice(lines)]
        run = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        time.sleep(draw.uniform(0.3, 3.0))
        run.send_signal(signal.SIGINT)
        told.append(run.communicate()[1])
        # Python ends by the signal itself where the interrupt came inside of an `exec`.
        assert run.returncode in (0, 130, -signal.SIGINT)
    assert not [text for text in told if "Traceback" in text]
    assert told.count("stopped: Ctrl-C\n") > 5 and list(tmp_path.iterdir()) == []
