"""Every task has its operator, its own options, and a picture of what was measured."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import npgd
from analysis.commands import app
from analysis.commands.problem import OPTIONS, Problem, TaskName, gaussian_kernel

runner = CliRunner()
DIGITS, FACES = (1, 28, 28), (3, 64, 64)
KINDS = {
    TaskName.CS: npgd.Gaussian,
    TaskName.STRUCTURED: npgd.StructuredRandom,
    TaskName.INPAINTING: npgd.Inpainting,
    TaskName.SUPER_RESOLUTION: npgd.SuperResolution,
    TaskName.BLUR: npgd.Blur,
    TaskName.FOURIER: npgd.Fourier,
    TaskName.RADON: npgd.Radon,
}


def run(*arguments):
    return runner.invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("shape", [DIGITS, FACES])
@pytest.mark.parametrize("task", TaskName)
def test_every_task_measures_less_than_all_and_shows_it_as_images(task, shape):
    problem = Problem(task)
    A, words = problem.build(shape, seed=3)
    assert type(A) is KINDS[task] and words
    x = torch.rand(2, *shape) * 2 - 1
    (picture,) = problem.measured(A, A(x)).values()
    assert picture.shape == x.shape and bool(picture.isfinite().all())
    # A blur has as many measurements as pixels, most of them with little of the image.
    assert A.m == A.n if task is TaskName.BLUR else A.m < A.n


def test_a_task_s_options_reach_its_operator():
    assert Problem(TaskName.STRUCTURED, m=7).build(DIGITS, 0)[0].m == 7
    radon = Problem(TaskName.RADON, angles=3).build(DIGITS, 0)[0]
    assert radon.angles == (0.0, 60.0, 120.0)
    columns = Problem(TaskName.FOURIER, acceleration=2.0).build(DIGITS, 0)[0]
    assert columns.m == 2 * 28 * 14
    same, other = (Problem(TaskName.FOURIER).build(DIGITS, seed)[0].index for seed in (0, 1))
    assert torch.equal(Problem(TaskName.FOURIER).build(DIGITS, 0)[0].index, same)
    assert not torch.equal(same, other)
    sharp, dull = (Problem(TaskName.BLUR, sigma=s).build(DIGITS, 0)[0] for s in (0.5, 3.0))
    edge = torch.zeros(1, *DIGITS)
    edge[..., 14:] = 1
    steepest = [A(edge).reshape(28, 28).diff(dim=1).amax() for A in (sharp, dull)]
    assert steepest[0] > 3 * steepest[1]


@pytest.mark.parametrize("sigma", [0.2, 1.5, 28.0])
def test_the_kernel_of_a_blur_is_even_fits_and_keeps_what_is_constant(sigma):
    kernel = gaussian_kernel(sigma, 28)
    assert kernel.sum() == pytest.approx(1, abs=1e-6) and kernel.shape[0] % 2 == 1
    assert max(kernel.shape) <= 28
    torch.testing.assert_close(kernel, kernel.flip(0, 1))
    torch.testing.assert_close(kernel, kernel.T)
    if sigma == 1.5:
        variance = (kernel.sum(0) * torch.arange(-5, 6).square()).sum()
        assert float(variance) == pytest.approx(sigma**2, rel=0.02)


@pytest.mark.parametrize("task", [TaskName.STRUCTURED, TaskName.BLUR, TaskName.RADON])
def test_recover_takes_a_task_and_writes_what_was_measured(task, tmp_path):
    done = run("recover", "--task", task.value, "--count", 2, "--max-iter", 2, "--output",
               tmp_path / "o")  # fmt: skip
    assert done.exit_code == 0, done.output
    results = json.loads((tmp_path / "o/results.json").read_text())
    assert results["m"] == Problem(task).build(DIGITS, 0)[0].m
    with np.load(tmp_path / "o/images.npz") as images:
        assert images["recovered"].shape == (2, *DIGITS)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (("--angles", 3), "--angles must be left out, for it says nothing with --task cs"),
        (("--task", "radon", "--m", 9), "--m must be left out, for it says nothing with --task ra"),
        (("--task", "blur", "--acceleration", 2), "--acceleration must be left out"),
        (("--task", "radon", "--angles", 0), "--angles must be from 1 to 720"),
        (("--task", "blur", "--sigma", -1), "--sigma must be above 0"),
        (("--task", "blur", "--sigma", "nan"), "--sigma must be above 0"),
        (("--task", "blur", "--sigma", 29), "--sigma must be above 0 and at most 28"),
        (("--task", "fourier", "--acceleration", 0.5), "--acceleration must be at least 1"),
        (("--task", "structured", "--m", 785), "--m must be from 1 to 784"),
    ],
)
def test_an_option_that_does_not_fit_its_task_is_one_sentence(line, told, tmp_path):
    for command in ("recover", "verify"):
        done = run(command, *line, "--output", tmp_path / "o")
        assert done.exit_code == 2 and told in " ".join(done.output.split())
        assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("command", ["predict", "sweep", "design"])
def test_commands_of_a_number_of_measurements_have_no_task(command):
    """They are about A of independent entries, or make one."""
    done = run(command, "--task", "blur")
    assert done.exit_code == 2 and "--task" in done.output
    assert len([line for line in done.output.splitlines() if "error" in line.lower()]) == 1


def test_every_option_of_a_task_is_a_field_and_says_which_task():
    from analysis.commands.options import documented

    texts = documented(Problem)
    for task, names in OPTIONS.items():
        for name in names:
            said = texts[name]
            assert f"--task {task.value}" in said or task.value in said or "--boxes" in said
