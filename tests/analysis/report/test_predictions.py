"""Every statement beside the run: against sets where it is exact, and where it must be silent."""

import io
import json
import math

import pytest
import torch
from rich.console import Console

import npgd
from analysis.limits import PARTS
from analysis.projection import ProjectionSettings
from analysis.rec.settings import RecSettings
from analysis.report import Report, figures, tables, verify
from analysis.report import predictions as module
from analysis.report.predictions import STATEMENTS, Prediction
from analysis.testing import normal, random_affine_set, random_prior
from analysis.words import at_least
from npgd.operators import Inpainting, MatrixOperator
from npgd.projectors import AffineSet, FiniteSet

SHAPE = (1, 6, 6)
SIZE = math.prod(SHAPE)
K = 3
SMALL = {
    "rec": RecSettings(points=60, tangent_points=8, search_starts=2, search_steps=5),
    "projection": ProjectionSettings(points=6, starts=2, steps=20),
    "n_iter": 12,
    "count": 4,
}


def gaussian(m: int) -> MatrixOperator:
    return MatrixOperator(normal(m, SIZE, seed=2) / math.sqrt(m), SHAPE)


def affine() -> AffineSet:
    return random_affine_set(SHAPE, K)


@pytest.fixture(scope="module")
def on_affine() -> Report:
    return verify(gaussian(20), affine(), **SMALL)


@pytest.fixture(scope="module")
def on_network() -> Report:
    A = npgd.Gaussian(SHAPE, 18, seed=0, dtype=torch.float64)
    return verify(A, random_prior(SHAPE, K), **SMALL)


def row(report: Report, name: str) -> Prediction:
    return next(row for row in report.predictions.rows if row.name == name)


def test_on_an_affine_set_both_local_rates_are_the_eigenvalue_and_the_run_shows_it(on_affine):
    gains = torch.linalg.svdvals(gaussian(20).matrix @ affine().orthonormal) ** 2
    rate = float((1 - on_affine.settings["step_size"] * gains).abs().max())
    for name in ("exact", "projector"):
        found = row(on_affine, name)
        assert found.predicted == pytest.approx(rate, abs=1e-6)
        assert found.observed == pytest.approx(rate, abs=1e-3)
        assert found.ratio == pytest.approx(1, abs=1e-2)
    assert row(on_affine, "exact").met == "yes"
    assert row(on_affine, "projector").met == "for all 4 images"


def test_a_bound_is_not_below_what_is_seen():
    report = verify(gaussian(200), affine(), **SMALL)
    for name in ("uniform", "pointwise", "obtuse"):
        found = row(report, name)
        assert found.predicted < 1 and not found.silent
        assert found.ratio >= 1 - 1e-6 or math.isnan(found.ratio)
    assert row(report, "uniform").met.startswith("yes: κ = 1.")


def test_a_void_bound_predicts_nothing(on_network):
    assert float(on_network.uniform.rate.min()) >= 1
    found = row(on_network, "uniform")
    assert found.met == f"no: κ ≥ {at_least(float(on_network.uniform.kappa.max()))}"
    assert found.silent == "nothing: void" and math.isnan(found.predicted)
    assert math.isnan(found.ratio)


def test_state_evolution_is_held_against_means_of_both_runs(on_network):
    found = on_network.predictions
    for name, run in (("evolution", found.amp), ("evolution_npgd", found.default)):
        assert row(on_network, name).predicted == found.evolution.fixed_point
        assert row(on_network, name).observed == pytest.approx(float(run.error[-1].mean()))
    assert row(on_network, "evolution").met == "yes"


def test_the_parts_sum_to_the_error_of_the_run_that_users_get(on_network):
    limits, run = on_network.predictions.limits, on_network.predictions.default
    torch.testing.assert_close(limits.error, run.error[-1].double())
    torch.testing.assert_close(sum(limits.parts.values()), limits.error)
    assert list(limits.parts) == list(PARTS) == list(on_network.predictions.budget.parts)
    assert float(limits.parts["range"].max()) < 1e-12  # samples of G
    _, head, rows, _ = tables.limits_table(on_network)
    assert [line[0] for line in rows] == [*PARTS, "error seen"]
    assert all(len(line) == len(head) for line in rows)
    shown = [float(line[2]) for line in rows]
    assert sum(shown[:-1]) == pytest.approx(shown[-1], rel=0.01, abs=1e-12)


def test_every_change_that_was_tried_has_its_row(on_network):
    advice = on_network.predictions.advice
    _, head, rows, _ = tables.advice_table(on_network)
    assert len(rows) == len(advice.trials) + 1 and all(len(line) == len(head) for line in rows)
    # The encoder projects poorly, so that NPGD(prior) would finish by itself.
    assert rows[0][0] == "NPGD(prior, finish=0), unchanged"
    assert [line[0] for line in rows[1:]] == [
        trial.change.words for trial in sorted(advice.trials, key=lambda t: float(t.error.mean()))
    ]
    assert [line[-1] for line in rows[1:]].count("yes") == len(advice.ranked)


@pytest.mark.parametrize(
    ("A", "S", "silent"),
    [
        (gaussian(20), FiniteSet(normal(20, *SHAPE, seed=4)),
         {"exact": "no latents", "projector": "no encoder, so no latents"}),
        (Inpainting(SHAPE, hole=2), random_prior(SHAPE, K),
         {"evolution": "A is not random", "evolution_npgd": "A is not random"}),
        (npgd.Radon(SHAPE, 3), random_prior(SHAPE, K),
         {"evolution": "A is not random", "evolution_npgd": "A is not random"}),
    ],
)  # fmt: skip
def test_what_cannot_be_said_has_a_phrase(A, S, silent):
    report = verify(A, S, **SMALL, effort="quick")
    for name, words in silent.items():
        assert row(report, name).silent == f"nothing: {words}"
    rest = [name for name in STATEMENTS if name not in (*silent, "uniform", "pointwise", "obtuse")]
    assert all(not row(report, name).silent for name in rest)


def test_an_operator_of_another_library_is_random_if_images_are_no_better_kept_than_noise():
    x = random_prior((1, 8, 8), K).sample(6, seed=1) - 1  # images have a mean
    for seed in range(20):
        A = MatrixOperator(normal(30, 64, seed=seed), (1, 8, 8))
        module._treats_as_noise(A, x, module.column_norm(A, x))
    sums = torch.eye(8, dtype=torch.float64)
    rows = torch.cat([torch.kron(sums, torch.ones(1, 8)), torch.kron(torch.ones(1, 8), sums)])
    A = MatrixOperator(rows, (1, 8, 8))
    with pytest.raises(module._Silent, match=r"keeps [\d.]+ times as much of these images as of"):
        module._treats_as_noise(A, x, module.column_norm(A, x))


class OnlyGenerates(torch.nn.Module):
    """G and a projector, no encoder and no samples."""

    def __init__(self) -> None:
        super().__init__()
        self.within = random_prior(SHAPE, K)
        self.latent_dim, self.image_shape = K, SHAPE

    def generate(self, z):
        return self.within.generate(z)

    def project(self, w):
        return self.within.project(w)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_foreign_set_without_encoder_and_samples_has_a_report(noise, tmp_path):
    images = normal(2, *SHAPE, seed=5)
    A = npgd.Gaussian(SHAPE, SIZE + 4, seed=1, dtype=torch.float64)  # m > n
    report = verify(A, OnlyGenerates(), images, **SMALL, noise=noise)
    assert "no encoder" in row(report, "projector").silent
    parts = report.predictions.limits.parts
    assert bool((parts["noise"] == 0).all()) == (noise == 0)
    assert float(parts["range"].min()) > 0
    report.write(tmp_path)
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [line["name"] for line in written["predictions"]] == list(STATEMENTS)
    assert set(written["limits"]) == {"seen", "predicted", "without"}


def test_quick_does_not_run_the_exact_projection(on_affine):
    report = verify(gaussian(20), affine(), **SMALL, effort="quick")
    assert row(report, "exact").unseen == "not run" and not row(on_affine, "exact").unseen


def test_a_part_that_fails_does_not_fail_the_report(monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("of somebody else's")

    parts = ("denoising_curve", "local_rate", "split_error", "advise", "obtuseness", "found_from")
    for name in parts:
        monkeypatch.setattr(module, name, fails)
    report = verify(gaussian(20), random_prior(SHAPE, K), **SMALL)
    for name in ("exact", "projector", "evolution", "evolution_npgd", "obtuse"):
        assert row(report, name).silent == "nothing: failed: of somebody else's"
    assert "What limits the error is not known: failed" in report.summary
    assert "limits" in report.to_dict() and "is not known" in report.to_html()


def test_where_A_is_not_linear_no_statement_is_made():
    class Bent(MatrixOperator):
        def _forward(self, x):
            return super()._forward(x) + x.square().flatten(1)[:, : self.m]

    report = verify(Bent(gaussian(20).matrix, SHAPE), affine(), **SMALL)
    assert all("A is not linear" in row.silent for row in report.predictions.rows)
    assert report.predictions.default is not None and "Predicted and seen" not in report.to_html()


def test_the_runs_stand_side_by_side(on_network):
    runs = on_network.to_dict()["runs"]
    assert [run["name"] for run in runs] == [
        "NPGD, η = 1/β", "NPGD(prior, finish=0), its own step", "AMP(prior)",
    ]  # fmt: skip
    default = on_network.predictions.default
    assert runs[1]["psnr"] == pytest.approx(float(default.psnr.mean()))
    assert runs[1]["error"] == pytest.approx(float(default.error[-1].mean()))
    assert default.step_sizes[1].std() > 0
    console = Console(width=80, file=io.StringIO())
    console.print(on_network.table())
    assert "…" not in console.file.getvalue()
    assert on_network.summary.index("state evolution") < on_network.summary.index("1. β/α")


def test_the_figure_draws_bound_predictions_and_runs(on_network, on_affine):
    (axis,) = figures.draw_predictions(on_network).axes
    lines = {line.get_label(): line for line in axis.get_lines()}
    assert {
        "NPGD, η = 1/β, seen", "NPGD(prior, finish=0), its own step, seen", "state evolution",
        "Theorem 1's bound, uniform",
    } <= set(lines)  # fmt: skip
    run, evolution = on_network.predictions.default, on_network.predictions.evolution
    seen = torch.as_tensor(lines["NPGD(prior, finish=0), its own step, seen"].get_ydata())
    torch.testing.assert_close(seen, run.error.double().mean(1))
    shown = torch.as_tensor(lines["state evolution"].get_ydata())
    torch.testing.assert_close(shown, evolution.error[: len(shown)])
    bound = figures.error_bound(on_affine)
    start = on_affine.uniform.start
    error = on_affine.uniform.decomposition.error / SIZE
    assert (error[start:] <= bound[start:] * (1 + 1e-9) + 1e-15).all()
    (axis,) = figures.draw_predictions(on_affine).axes
    slope = next(a for a in axis.get_lines() if a.get_label().startswith("local rate, exact"))
    steps = torch.as_tensor(slope.get_ydata())
    expected = torch.full_like(steps[1:], row(on_affine, "exact").predicted ** 2)
    torch.testing.assert_close(steps[1:] / steps[:-1], expected)


def test_runs_that_rest_have_their_convergence_proved_where_it_is_asked_for(monkeypatch):
    prior, thorough = random_prior(SHAPE, K), module.DEPTHS["thorough"]
    assert thorough.proofs > 0 and module.DEPTHS["default"].proofs == 0
    slow = module.Depth(3, 0, 200, draws=1, longer=2, proofs=2)
    monkeypatch.setitem(module.DEPTHS, "quick", slow)
    report = verify(gaussian(20), prior, **SMALL, effort="quick")
    proof = report.predictions.proof
    assert len(proof.outcomes) == 2
    assert row(report, "projector").met.endswith(f"proved for {int(proof.proved.sum())}")
    assert proof.status[1:] in report.to_html()
    assert report.to_dict()["proof"]["proved"] == proof.proved.tolist()
    assert bool((proof.factor >= report.predictions.rest.rate[:2] - 1e-12).all())  # ‖DT‖_W ≥ ρ
