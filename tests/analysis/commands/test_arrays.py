"""Arrays from files of other programs, and recoveries from what was measured."""

import json

import numpy as np
import pytest
from scipy import io
from typer.testing import CliRunner

import npgd
from analysis.commands import app
from analysis.commands.arrays import read_array
from analysis.words import about

runner = CliRunner()


def run(*arguments):
    return runner.invoke(app, [str(argument) for argument in arguments])


def write(path, **arrays):
    match path.suffix:
        case ".npy":
            np.save(path, arrays["y"])
        case ".npz":
            np.savez(path, **arrays)
        case ".mat":
            io.savemat(path, arrays)
        case _:
            h5py = pytest.importorskip("h5py")
            with h5py.File(path, "w") as file:
                for name, array in arrays.items():
                    file[f"scan/{name}" if name != "y" else name] = array
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat", ".h5"])
@pytest.mark.parametrize("kind", ["float32", "complex128", "int16"])
def test_an_array_comes_back_from_every_kind_of_file(suffix, kind, tmp_path):
    y = (np.arange(12).reshape(3, 4) * (1 + 2j if kind == "complex128" else 1)).astype(kind)
    found = read_array(write(tmp_path / f"data{suffix}", y=y, mask=np.ones(2)))
    assert np.array_equal(found, y)
    assert found.dtype == (np.float64 if kind == "int16" else kind)


def test_files_of_matlab_7_3_have_their_axes_turned(tmp_path):
    h5py = pytest.importorskip("h5py")
    y = np.arange(6.0).reshape(2, 3)
    with h5py.File(tmp_path / "new.mat", "w", userblock_size=512) as file:
        kept = np.empty((3, 2), [("real", float), ("imag", float)])
        kept["real"], kept["imag"] = y.T, -y.T
        file["y"] = kept
    with (tmp_path / "new.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    assert np.array_equal(read_array(tmp_path / "new.mat"), y - 1j * y)


def test_what_is_no_array_is_refused_in_a_sentence(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.ones(2), b=np.ones(3))
    with pytest.raises(ValueError, match=r"an array named 'y', got \['a', 'b'\]; --entry"):
        read_array(tmp_path / "two.npz")
    assert len(read_array(tmp_path / "two.npz", "b")) == 3
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "words.npy", np.array(["a"]))
    (tmp_path / "broken.mat").write_bytes(b"no")
    (tmp_path / "y.csv").write_text("1,2")
    for name in ("objects.npy", "words.npy", "broken.mat", "y.csv"):
        with pytest.raises(ValueError, match=name):
            read_array(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_array(tmp_path / "absent.npy")


@pytest.fixture
def scan(tmp_path):
    """A matrix and what it measured of two digits, in files of another program."""
    prior = npgd.load_prior("mnist")
    A = npgd.Gaussian(prior.image_shape, m=80, seed=5)
    x = prior.sample(2, seed=3)
    io.savemat(tmp_path / "A.mat", {"A": A.matrix.numpy(), "when": "today"})
    np.save(tmp_path / "scan.npy", A(x).numpy())
    return A, x


def test_recover_from_measurements_is_recover_from_python(scan, tmp_path):
    A, x = scan
    done = run("recover", "--measurements", tmp_path / "scan.npy", "--operator", tmp_path / "A.mat",
               "--max-iter", 3, "--output", tmp_path / "out")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "per pixel" not in done.output and "PSNR" not in done.output
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["solution"]["error"] is None and results["solution"]["psnr"] is None
    assert results["written"] == ["images/0000-scan.png", "images/0001-scan.png"]
    solution = npgd.recover(A, A(x), npgd.NPGD(npgd.load_prior("mnist"), max_iter=3))
    with np.load(tmp_path / "out" / "images.npz") as images:
        assert images.files == ["recovered"]
        assert np.abs(images["recovered"] - solution.x.numpy()).max() < 1e-3
    relative = results["solution"]["relative_misfit"]
    assert relative == pytest.approx(solution.relative_misfit.tolist(), rel=1e-2)
    assert all(about(value) in done.output for value in relative)


def test_a_misfit_without_measurements_to_compare_it_with_is_a_dash(scan, tmp_path):
    y = np.load(tmp_path / "scan.npy")
    np.save(tmp_path / "scan.npy", np.concatenate([y[:1], 0 * y[:1]]))
    done = run("recover", "--measurements", tmp_path / "scan.npy", "--operator", tmp_path / "A.mat",
               "--max-iter", 2, "--output", tmp_path / "out")  # fmt: skip
    assert done.exit_code == 0 and "–: no ratio, as y = 0" in done.output
    first, second = json.loads((tmp_path / "out" / "results.json").read_text())["solution"][
        "relative_misfit"
    ]
    assert second is None and done.output.count(about(first)) == 2  # its own, and the mean


@pytest.mark.parametrize(("scale", "said"), [(1, False), (30, True)])
def test_measurements_in_other_units_are_told_of(scale, said, scan, tmp_path):
    np.save(tmp_path / "scan.npy", scale * np.load(tmp_path / "scan.npy"))
    done = run("recover", "--measurements", tmp_path / "scan.npy", "--operator", tmp_path / "A.mat",
               "--max-iter", 8, "--output", tmp_path / "out")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert ("the measurements are hardly met" in done.output) == said


def test_one_image_may_be_a_row_a_column_or_a_vector(scan, tmp_path):
    A, x = scan
    y = A(x)[:1].numpy()
    for i, one in enumerate((y, y.T, y[0])):
        np.save(tmp_path / f"{i}.npy", one)
        done = run("recover", "--measurements", tmp_path / f"{i}.npy", "--operator",
                   tmp_path / "A.mat", "--max-iter", 1, "--output", tmp_path / str(i))  # fmt: skip
        assert done.exit_code == 0, done.output
    found = [np.load(tmp_path / str(i) / "images.npz")["recovered"] for i in range(3)]
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


def test_baselines_stand_beside_the_method(tmp_path):
    done = run("recover", "--count", 2, "--max-iter", 2, "--baselines", "--output", tmp_path / "o")
    assert done.exit_code == 0, done.output
    results = json.loads((tmp_path / "o" / "results.json").read_text())
    assert [rival["method"] for rival in results["baselines"]] == ["TotalVariation", "PnPADMM"]
    with np.load(tmp_path / "o" / "images.npz") as images:
        for rival in results["baselines"]:
            name = {"TotalVariation": "tv", "PnPADMM": "pnp-admm"}[rival["method"]]
            error = np.square(images[name] - images["original"]).mean((1, 2, 3))
            assert np.allclose(error, rival["error"][-1], rtol=1e-3)
    assert all(word in done.output for word in ("tv", "pnp-admm", "seconds"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "--operator or --task"),
        (["--task", "cs", "--count", "3"], "--count must be left out"),
        (["--task", "cs", "--noise", "0.1"], "--noise must be left out"),
        (["--task", "cs", "--m", "79"], "(batch, 79), got (2, 80)"),
        (["--task", "cs", "--entry", "z"], "a .npy file has one array"),
    ],
)
def test_measurements_that_do_not_fit(given, told, scan, tmp_path):
    done = run("recover", "--measurements", tmp_path / "scan.npy", *given,
               "--output", tmp_path / "out")  # fmt: skip
    assert done.exit_code == 2
    assert told in done.output.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_measurements_that_are_not_finite(tmp_path):
    np.save(tmp_path / "y.npy", np.full((1, 100), np.nan))
    done = run("recover", "--measurements", tmp_path / "y.npy", "--task", "cs",
               "--output", tmp_path / "out")  # fmt: skip
    assert done.exit_code == 2 and "--measurements: y must be finite" in done.output
