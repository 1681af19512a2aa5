"""The command `npgd`: what it writes, and what it refuses to overwrite."""

import json
import zipfile
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from analysis.commands import app
from npgd.training import PAPER

runner = CliRunner()


def run(*arguments):
    return runner.invoke(app, [str(argument) for argument in arguments])


TASKS = [
    (["--task", "cs", "--m", "60"], 60),
    (["--task", "inpainting", "--hole", "8"], 784 - 64),
    (["--task", "super-resolution", "--factor", "2"], 196),
]


@pytest.mark.parametrize(("task", "m"), TASKS)
def test_recover_writes_numbers_pictures_and_images(task, m, tmp_path):
    out = tmp_path / "out"
    done = run("recover", *task, "--count", 3, "--max-iter", 4, "--output", out)
    assert done.exit_code == 0, done.output
    assert "samples of G" in done.output
    results = json.loads((out / "results.json").read_text())
    assert results["m"] == m
    errors = np.array(results["solution"]["error"])
    assert errors.shape == (5, 3)
    with np.load(out / "images.npz") as images:
        recomputed = np.square(images["recovered"] - images["original"]).mean(axis=(1, 2, 3))
    assert np.allclose(recomputed, errors[-1], rtol=1e-4)
    assert sorted(p.name for p in (out / "images").iterdir()) == [f"{i:04d}.png" for i in range(3)]
    assert Image.open(out / "recovery.png").size[0] > 100


def test_the_same_seed_gives_the_same_result(tmp_path):
    for name in ("a", "b"):
        run("recover", "--count", 2, "--noise", 0.1, "--max-iter", 3, "--output", tmp_path / name)
    a, b = (json.loads((tmp_path / n / "results.json").read_text()) for n in ("a", "b"))
    assert a["solution"]["objective"] == b["solution"]["objective"]


def test_a_users_folder(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(folder / "black.png")
    done = run("recover", "--images", folder, "--max-iter", 2, "--output", tmp_path / "out")
    assert done.exit_code == 0 and "1 picture in" in done.output.replace("\n", " ")


def test_a_users_zip_with_a_broken_picture(tmp_path):
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(tmp_path / "black.png")
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        archive.write(tmp_path / "black.png", "in/black.png")
        archive.writestr("in/broken.png", b"broken")
    given = ["recover", "--images", tmp_path / "pictures.zip", "--max-iter", 2]
    done = run(*given, "--output", tmp_path / "out")
    told = " ".join(done.output.split())
    assert done.exit_code == 0 and "1 of 2 pictures" in told and "in/broken.png" in told
    done = run(*given, "--output", tmp_path / "strict", "--strict")
    assert done.exit_code == 2 and "in/broken.png" in " ".join(done.output.split())
    assert not (tmp_path / "strict").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prior", "nonsense"], "a shipped prior"),
        (["--m", "0"], "--m must be from 1 to 784"),
        (["--task", "inpainting", "--hole", "28"], "pixel"),
        (["--task", "super-resolution", "--factor", "3"], "divide"),
        (["--step-size", "quick"], "--step-size"),
        (["--noise", "-1"], "--noise"),
        (["--count", "0"], "--count"),
        (["--device", "abacus"], "--device"),
        (["--images", "/nowhere/at/all"], "folder, zip or LMDB"),
        (["--dataset", "mnist", "--images", "x"], "give one of the two"),
        (["--m", "9999"], "--m must be from 1 to 784"),
        (["--task", "inpainting", "--m", "5"], "--m must be left out"),
        (["--boxes", "2"], "--boxes must be left out"),
        (["--dataset", "celeba"], "--prior celeba or church would fit"),
    ],
)
def test_bad_arguments_are_named_and_leave_nothing(arguments, message, tmp_path):
    done = run("recover", *arguments, "--output", tmp_path / "out")
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert list(tmp_path.iterdir()) == []


def test_train_then_recover_with_what_was_trained(tmp_path, monkeypatch):
    """The two training commands, on a small data set of their own, end in a usable prior."""
    import torch

    from npgd import data

    shape = (32, 1, 28, 28)
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    monkeypatch.setattr(data, "dataset_uint8", lambda *_: images)
    g, p = tmp_path / "g", tmp_path / "p"
    common = ["--latent-dim", 3, "--width", 4, "--epochs", 1, "--batch-size", 8]
    common += ["--coverage", 1, "--principal"]
    done = run("train", "generator", "--output", g, *common)
    assert done.exit_code == 0, done.output
    done = run("train", "projector", "--generator", g, "--output", p, "--width", 4, "--hidden", 8,
               "--steps", 2, "--paper", "--noise-low", 0.5)  # fmt: skip
    assert done.exit_code == 0, done.output
    card = json.loads((p / "prior.json").read_text())
    given = {"width": 4, "hidden": 8, "steps": 2, "noise_low": 0.5}
    assert card["projector_training"] == asdict(replace(PAPER, **given))
    c = tmp_path / "c"
    done = run("train", "corrector", "--prior", p / "prior.safetensors", "--output", c,
               "--hidden", 8, "--steps", 2, "--real-fraction", 0)  # fmt: skip
    assert done.exit_code == 0, done.output
    for prior in (p, c):
        done = run("recover", "--prior", prior / "prior.safetensors", "--count", 2, "--max-iter", 3,
                   "--refine", 1, "--output", tmp_path / f"out-{prior.name}")  # fmt: skip
        assert done.exit_code == 0, done.output


def test_train_a_colour_prior(tmp_path, monkeypatch):
    """The options for 64×64: a self-attention GAN, its encoder gone on with, every operator."""
    import torch

    import npgd
    from npgd import data

    images = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8)
    monkeypatch.setattr(data, "dataset_uint8", lambda *_: images)
    g, p, c = (tmp_path / name for name in "gpc")
    chosen = ["--dataset", "church", "--precision", "bfloat16"]
    done = run("train", "generator", "--output", g, *chosen, "--architecture", "sagan",
               "--latent-dim", 3, "--width", 4, "--epochs", 1, "--batch-size", 8, "--flips",
               "--augment", "color", "--coverage", 2, "--unbiased")  # fmt: skip
    assert done.exit_code == 0, done.output
    points = ["--operators", "gaussian,inpainting,super-resolution", "--m-low", 5, "--m-high", 9]
    done = run("train", "projector", "--generator", g, "--output", p, *chosen, *points,
               "--from-coverage", "--batch-size", 4, "--steps", 2)  # fmt: skip
    assert done.exit_code == 0, done.output
    done = run("train", "corrector", "--prior", p / "prior.safetensors", "--output", c, *chosen,
               *points, "--hidden", 8, "--steps", 1, "--real-fraction", 0.1)  # fmt: skip
    assert done.exit_code == 0, done.output
    prior = npgd.load_prior(c / "prior.safetensors")
    assert prior.image_shape == (3, 64, 64) and prior.corrections == 2
    assert torch.isfinite(prior.project(prior.sample(2, seed=0))).all()


@pytest.mark.parametrize("what", ["denoiser", "onenet"])
def test_train_what_admm_needs(what, tmp_path, monkeypatch):
    import torch

    import npgd
    from npgd import data

    images = torch.randint(0, 256, (80, 1, 28, 28), dtype=torch.uint8)
    monkeypatch.setattr(data, "dataset_uint8", lambda *_: images)
    done = run("train", what, "--output", tmp_path, "--width", 4, "--steps", 2)
    assert done.exit_code == 0, done.output
    load = {"denoiser": npgd.load_denoiser, "onenet": npgd.load_onenet}[what]
    denoise = load(tmp_path / f"{what}.safetensors")
    assert denoise is not None


@pytest.mark.parametrize(
    "method", ["amp", "csgm", "pgdgan", "deviation", "tv", "lasso", "pnp-admm", "onenet"]
)
def test_recover_with_every_method(method, tmp_path):
    import json

    out = tmp_path / "out"
    done = run("recover", "--method", method, "--count", 1, "--max-iter", 2, "--output", out)
    assert done.exit_code == 0, done.output
    assert json.loads((out / "results.json").read_text())["method"] == method
    done = run("recover", "--method", method, "--refine", 1, "--output", tmp_path / "no")
    assert done.exit_code == 2 and "--refine must be left out" in done.output


def test_train_a_denoiser_of_two_data_sets_in_colour(tmp_path, monkeypatch):
    import torch

    import npgd
    from npgd import data

    sides = {"celeba": (3, 16, 16), "church": (3, 16, 16), "mnist": (1, 28, 28)}
    given = lambda name, *_: torch.randint(0, 256, (5, *sides[name]), dtype=torch.uint8)  # noqa: E731
    monkeypatch.setattr(data, "dataset_uint8", given)
    line = ["train", "denoiser", "--dataset", "celeba", "--width", 2, "--levels", 3, "--flips",
            "--steps", 2, "--batch-size", 10]  # fmt: skip
    done = run(*line, "--also", "church", "--output", tmp_path / "both")
    assert done.exit_code == 0, done.output
    network = npgd.load_denoiser(tmp_path / "both" / "denoiser.safetensors")
    assert network(torch.zeros(1, 3, 8, 8), 0.1).shape == (1, 3, 8, 8)
    with pytest.raises(ValueError, match="multiples of 8"):
        network(torch.zeros(1, 3, 12, 12), 0.1)
    done = run(*line, "--also", "mnist", "--output", tmp_path / "mixed")
    assert done.exit_code == 2 and "--also" in done.output


@pytest.mark.parametrize("method", ["secant-pca", "dct"])
def test_design_then_recover_with_it(method, tmp_path):
    file = tmp_path / "A.safetensors"
    done = run("design", "--method", method, "--m", 30, "--points", 60, "--output", file)
    assert done.exit_code == 0, done.output
    done = run("recover", "--operator", file, "--count", 2, "--max-iter", 2,
               "--output", tmp_path / "out")  # fmt: skip
    assert done.exit_code == 0, done.output
    done = run("design", "--method", method, "--m", 30, "--output", file)
    assert done.exit_code == 2 and "--force" in done.output


@pytest.mark.parametrize("given", [False, True])
def test_verify_hands_on_what_is_asked_and_writes_the_report(given, tmp_path, monkeypatch):
    """The report itself is tested beside `analysis.verify`; here it is a stand-in's."""
    import analysis

    asked = []

    @dataclass
    class Report:
        command: dict | None = None
        screen, numbered = "Nothing limits.", "All is well."

        def table(self):
            return "a table"

        def write(self, output, made):
            (output / "report.json").write_text(json.dumps({"made": made}))

    def verify(A, prior, images=None, **options):
        asked.append((A, images, options))
        return Report()

    monkeypatch.setattr(analysis, "verify", verify)
    if given:
        (tmp_path / "in").mkdir()
        Image.new("L", (28, 28), 255).save(tmp_path / "in/white.png")
    pictures = ["--images", tmp_path / "in"] if given else []
    done = run("verify", "--m", 7, "--seed", 5, "--step-size", 0.8, "--max-iter", 9, "--noise", 0.1,
               "--count", 3, *pictures, "--baselines", "--output", tmp_path / "out")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "Nothing limits." in done.output and "a table" not in done.output
    made = json.loads((tmp_path / "out/report.json").read_text())["made"]
    assert made["sources"] == (["white.png"] if given else [f"sample {i} of G" for i in range(3)])
    assert made["dtype"] == "float64" and made["device"] == "cpu" and "date" in made
    assert made["command_line"].startswith("npgd verify --m 7 --seed 5 --step-size 0.8")
    ((A, images, options),) = asked
    assert A.m == 7 and (images.shape == (1, 1, 28, 28) if given else images is None)
    told = {"step_size": 0.8, "n_iter": 9, "noise": 0.1, "count": 3, "seed": 5, "baselines": True}
    assert told.items() <= options.items()
