"""TotalVariation finds the minimum that cvxpy finds, and the closed form of a step."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import npgd
from analysis.testing import normal
from npgd.images import squared_norm
from npgd.operators import Gaussian, Inpainting, MatrixOperator, SuperResolution, as_operator
from npgd.solvers import TotalVariation, recover
from npgd.solvers.total_variation import gradient, gradient_adjoint, total_variation

DOUBLE = torch.float64
COLOUR = (3, 4, 5)
seeds = st.integers(0, 2**31)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))


def objective(A, y, x, penalty):
    return squared_norm(A(x) - y) + penalty * total_variation(x)


def operators(shape, seed=0):
    mask = torch.rand(shape[1:], generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[0, 0] = True
    return {
        "gaussian": Gaussian(shape, int(np.prod(shape)) // 2, seed, DOUBLE),
        "tall": MatrixOperator(normal(100, int(np.prod(shape)), seed=seed) / 10, shape),
        "inpainting": Inpainting(shape, mask=mask),
        "opaque": as_operator(opaque(normal(9, int(np.prod(shape)), seed=seed) / 3), shape),
    }


def opaque(matrix):
    """Products only, by scipy: the data step has to be solved by conjugate gradients."""
    import scipy.sparse.linalg

    return scipy.sparse.linalg.aslinearoperator(matrix.numpy())


def variation_of(x):
    """TV by loops, straight from its definition."""
    channels, height, width = x.shape
    total = 0.0
    for i in range(height):
        for j in range(width):
            total += np.sqrt(
                sum(
                    (x[c, i + 1, j] - x[c, i, j] if i + 1 < height else 0) ** 2
                    + (x[c, i, j + 1] - x[c, i, j] if j + 1 < width else 0) ** 2
                    for c in range(channels)
                )
            )
    return total


def cvxpy_variation(x, shape):
    """TV of cvxpy's variable, as a sum of norms, one for each pixel."""
    import cvxpy as cp

    _, height, width = shape
    at = np.arange(np.prod(shape)).reshape(shape)
    terms = []
    for i in range(height):
        for j in range(width):
            here = at[:, i, j]
            differences = [x[at[:, i + 1, j]] - x[here]] if i + 1 < height else []
            differences += [x[at[:, i, j + 1]] - x[here]] if j + 1 < width else []
            if differences:
                terms.append(cp.norm2(cp.hstack(differences)))
    return cp.sum(cp.hstack(terms))


@settings(max_examples=25)
@given(shape=shapes, seed=seeds)
def test_differences_and_their_adjoint(shape, seed):
    """⟨∇x, p⟩ = ⟨x, ∇ᵀp⟩; ∇ of a constant is zero; TV is that of the definition; ‖∇‖² < 8."""
    x, p = normal(2, *shape, seed=seed), normal(2, 2, *shape, seed=seed + 1)
    left = (gradient(x) * p).flatten(1).sum(1)
    torch.testing.assert_close(left, (x * gradient_adjoint(p)).flatten(1).sum(1))
    assert not gradient(torch.ones(1, *shape)).any()
    expected = [variation_of(image.numpy()) for image in x]
    torch.testing.assert_close(total_variation(x), torch.tensor(expected, dtype=DOUBLE))
    n = int(np.prod(shape))
    dense = gradient(torch.eye(n, dtype=DOUBLE).reshape(n, *shape)).flatten(1)
    assert float(torch.linalg.matrix_norm(dense, 2)) ** 2 < 8


@pytest.mark.parametrize(
    ("kind", "penalty"),
    [("gaussian", 1.0), ("gaussian", 0.03), ("tall", 0.3), ("inpainting", 0.03), ("opaque", 1.0)],
)
def test_objective_is_cvxpys_optimum(kind, penalty):
    import cvxpy as cp

    A = operators(COLOUR)[kind]
    y = normal(2, A.m, seed=4)
    dense = A(torch.eye(A.n, dtype=DOUBLE).reshape(-1, *COLOUR)).T.numpy()
    solution = recover(A, y, TotalVariation(penalty=penalty, max_iter=5000, tol=1e-7))
    assert solution.status.startswith("converged")
    found = objective(A, y, solution.x, penalty)
    for i in range(2):
        x = cp.Variable(A.n)
        loss = cp.sum_squares(dense @ x - y[i].numpy())
        problem = cp.Problem(cp.Minimize(loss + penalty * cvxpy_variation(x, COLOUR)))
        problem.solve(cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
        assert float(found[i]) == pytest.approx(problem.value, rel=1e-6)
        assert solution.info["total_variation"][i] == pytest.approx(float(total_variation(
            solution.x[i : i + 1])))  # fmt: skip


@pytest.mark.parametrize("kind", ["gaussian", "inpainting", "super-resolution"])
def test_the_least_variation_among_interpolants_as_the_penalty_vanishes(kind):
    """min TV(x) subject to Ax = y, by cvxpy; the distance to it falls in proportion to λ."""
    import cvxpy as cp

    shape = (3, 4, 6)
    A = SuperResolution(shape, 2) if kind == "super-resolution" else operators(shape)[kind]
    y = normal(1, A.m, seed=5)
    dense = A(torch.eye(A.n, dtype=DOUBLE).reshape(-1, *shape)).T.numpy()
    x = cp.Variable(A.n)
    constraints = [dense @ x == y[0].numpy()]
    problem = cp.Problem(cp.Minimize(cvxpy_variation(x, shape)), constraints)
    problem.solve(cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    misfits = []
    for penalty in (1e-2, 1e-4, 1e-6):
        solver = TotalVariation(penalty=penalty * A.norm() ** 2, max_iter=20_000, tol=1e-9)
        solution = recover(A, y, solver)
        misfits.append(float(solution.objective[-1].sqrt()))
    assert misfits[0] == pytest.approx(100 * misfits[1], rel=0.1)
    assert misfits[1] == pytest.approx(100 * misfits[2], rel=0.1)
    assert solution.info["total_variation"][0] == pytest.approx(problem.value, rel=1e-5)


@settings(max_examples=10)
@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4)),
    heights=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    penalty=st.floats(1e-3, 3.0),
    turns=st.integers(0, 3),
)
def test_a_step_keeps_its_place_and_loses_its_height(sizes, heights, penalty, turns):
    """A = I, y = a on n columns and b on m, same in every row, turned by right angles.

    The minimiser is a + s λ/2n, b − s λ/2m with s = sign(b − a) while these do not meet, and the
    mean from there on: each row is the one-dimensional problem.
    """
    (n, m, rows), (a, b) = sizes, heights
    y = torch.cat([torch.full((n,), a), torch.full((m,), b)]).double().repeat(rows, 1)
    sign = np.sign(b - a)
    left, right = a + sign * penalty / (2 * n), b - sign * penalty / (2 * m)
    if sign * (right - left) <= 0:
        left = right = (n * a + m * b) / (n + m)
    ends = torch.full((n,), left), torch.full((m,), right)
    expected = torch.cat(ends).double().repeat(rows, 1)
    y, expected = (image.rot90(turns)[None, None] for image in (y, expected))
    A = Inpainting(y.shape[1:], hole=0)
    # τ = λ: the data step then weighs both sides alike, and p comes to rest soonest.
    solver = TotalVariation(penalty=penalty, step_size=penalty, max_iter=20_000, tol=1e-10)
    solution = recover(A, A(y), solver)
    assert solution.status.startswith("converged")
    torch.testing.assert_close(solution.x, expected.contiguous(), rtol=0, atol=1e-6)


def test_coupled_channels_share_their_edges():
    """A colour step is a grey one: its height is the length of the vector between the colours.

    Channel by channel, λ would close the small steps altogether; coupled, all keep their colour.
    """
    low, high = torch.zeros(3, dtype=DOUBLE), torch.tensor([0.9, 0.1, -0.05], dtype=DOUBLE)
    y = torch.cat([low[:, None].repeat(1, 4), high[:, None].repeat(1, 4)], 1)[None, :, None]
    A, penalty = Inpainting((3, 1, 8), hole=0), 0.8
    x = recover(A, A(y), TotalVariation(penalty=penalty, max_iter=20_000, tol=1e-10)).x
    towards = (high - low) / (high - low).norm() * penalty / 8
    torch.testing.assert_close(x[0, :, 0, 0], low + towards, rtol=0, atol=1e-6)
    torch.testing.assert_close(x[0, :, 0, -1], high - towards, rtol=0, atol=1e-6)


def trajectory(A, y, solver, count):
    state = solver.init(A, y)
    states = [state]
    for _ in range(count):
        states.append(solver.step(A, y, states[-1]))
    return states


@pytest.mark.parametrize("kind", ["gaussian", "tall", "inpainting"])
def test_the_iteration_is_the_stated_one(kind):
    A, tau, penalty = operators(COLOUR)[kind], 0.3, 0.2
    y = normal(2, A.m, seed=2)
    eye = torch.eye(A.n, dtype=DOUBLE)
    dense, rho = A(eye.reshape(-1, *COLOUR)).T, penalty / (2 * tau)
    D = gradient(eye.reshape(-1, *COLOUR)).flatten(1).T
    left = dense.T @ dense + rho * eye
    x = torch.linalg.solve(left, (y @ dense).T).T
    p = torch.zeros(2, len(D), dtype=DOUBLE)
    states = trajectory(A, y, TotalVariation(penalty=penalty, step_size=tau), 6)
    for state in states:
        torch.testing.assert_close(state.x.flatten(1), x)
        torch.testing.assert_close(state.p.flatten(1), p)
        z = x - tau * p @ D
        x_new = torch.linalg.solve(left, (y @ dense + rho * z).T).T
        q = (p + (2 * x_new - x) @ D.T / (8 * tau)).reshape(2, 2, *COLOUR)
        q = q / q.square().sum((1, 2), keepdim=True).sqrt().clamp(min=1)
        x, p = x + 1.9 * (x_new - x), p + 1.9 * (q.flatten(1) - p)


@settings(max_examples=5)
@given(seed=seeds, tau=st.floats(0.03, 1.0), penalty=st.floats(0.01, 1.0))
def test_the_distance_to_the_end_never_rises(seed, tau, penalty):
    """‖x − x*‖²/τ − 2⟨∇(x − x*), p − p*⟩ + ‖p − p*‖²/σ, from step to step."""
    A = Gaussian(COLOUR, 24, seed, DOUBLE)
    y = normal(2, A.m, seed=seed)
    solver = TotalVariation(penalty=penalty, step_size=tau)
    *states, end = trajectory(A, y, solver, 2000)
    distances = []
    for state in states[:200]:
        x, p = state.x - end.x, state.p - end.p
        mixed = (gradient(x) * p).flatten(1).sum(1)
        distances.append(squared_norm(x) / tau - 2 * mixed + 8 * tau * squared_norm(p))
    distances = torch.stack(distances)
    assert bool((distances[1:] <= distances[:-1] * (1 + 1e-9) + 1e-9).all())
    assert bool((distances[-1] < distances[0]).all())


@settings(max_examples=2)
@given(seed=seeds)
def test_the_end_satisfies_the_conditions_of_optimality(seed):
    """|p_ij| ≤ 1, ⟨∇x, p⟩ = TV(x) and 2Aᵀ(Ax − y) = −λ∇ᵀp; "auto" and batched."""
    A = Gaussian(COLOUR, 30, seed, DOUBLE)
    y = A(normal(3, *COLOUR, seed=seed))
    end = trajectory(A, y, TotalVariation(), 4000)[-1]
    assert end.penalty == pytest.approx(1e-3 * A.norm() ** 2)
    assert float(end.p.square().sum((1, 2)).max()) <= 1 + 1e-6
    inner = (gradient(end.x) * end.p).flatten(1).sum(1)
    torch.testing.assert_close(inner, total_variation(end.x), rtol=1e-5, atol=0)
    slope = 2 * A.adjoint(A(end.x) - y) / end.penalty
    torch.testing.assert_close(slope, -gradient_adjoint(end.p), rtol=0, atol=1e-4)


@settings(max_examples=5)
@given(seed=seeds, scale=st.floats(0.2, 5.0), shift=st.floats(-2, 2))
def test_the_solution_follows_what_the_image_is_shifted_scaled_or_transposed_by(seed, scale, shift):
    """Transposed, channels permuted, scaled together with λ, shifted: so is what is found.

    Scaled and shifted, in what all minimisers share, Ax and TV(x): there may be many (a missing
    corner may lie anywhere between its two neighbours).

    Rotations by 90° are none of TV's symmetries: its differences are to the next row and column,
    never to the one before. What varies along one axis only can be turned (see the step).
    """
    shape, penalty = (3, 5, 5), 0.05
    mask = torch.rand(5, 5, generator=torch.Generator().manual_seed(seed)) < 0.6
    mask[0, 0] = True
    A, B = Inpainting(shape, mask=mask), Inpainting(shape, mask=mask.T)
    x = normal(1, *shape, seed=seed)

    def end(A, image, penalty=penalty):
        solver = TotalVariation(penalty=penalty, max_iter=4000, tol=1e-8)
        return recover(A, A(image), solver).x

    found = end(A, x)
    torch.testing.assert_close(end(B, x.mT.contiguous()), found.mT)
    torch.testing.assert_close(end(A, x[:, [2, 0, 1]]), found[:, [2, 0, 1]])
    near = {"rtol": 0, "atol": 1e-4}
    scaled, shifted = end(A, scale * x, scale * penalty), end(A, x + shift)
    torch.testing.assert_close(A(scaled), scale * A(found), **near)
    torch.testing.assert_close(A(shifted), A(found + shift), **near)
    variation = total_variation(found)
    torch.testing.assert_close(total_variation(scaled), scale * variation, rtol=1e-3, atol=0)
    torch.testing.assert_close(total_variation(shifted), variation, rtol=1e-3, atol=0)


@pytest.mark.parametrize("kind", ["gaussian", "inpainting", "super-resolution"])
def test_constant_images_are_recovered(kind):
    """TV is zero there alone, and A does not map a constant to zero."""
    shape = (3, 4, 6)
    A = SuperResolution(shape, 2) if kind == "super-resolution" else operators(shape)[kind]
    x = torch.tensor([0.3, -1.0, 0.0], dtype=DOUBLE)[:, None, None, None].expand(3, *shape)
    solution = recover(A, A(x), TotalVariation(max_iter=20_000, tol=1e-9), x_true=x)
    assert float(solution.error[-1].max()) < 1e-10


def test_a_cartoon_is_recovered_from_fewer_measurements_than_pixels():
    """Two grey levels and a straight edge: min TV finds it exactly from a third of n."""
    x = torch.zeros(1, 1, 12, 12, dtype=DOUBLE)
    x[..., 7:] = 1.0
    A = Gaussian((1, 12, 12), 48, 0, DOUBLE)
    solution = recover(A, A(x), TotalVariation(penalty=1e-4, max_iter=5000, tol=1e-8), x_true=x)
    assert float(solution.error[-1]) < 1e-8


def test_no_step_size_changes_the_end():
    A = Gaussian(COLOUR, 30, 0, DOUBLE)
    y = normal(2, 30)
    ends = [
        objective(A, y, recover(A, y, TotalVariation(
            penalty=0.1, step_size=tau, max_iter=20_000, tol=1e-9)).x, 0.1)
        for tau in (0.02, 0.1, 0.5)
    ]  # fmt: skip
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-7, atol=0)
    torch.testing.assert_close(ends[2], ends[1], rtol=1e-7, atol=0)


def test_batch_is_image_by_image_and_rest_is_told_image_by_image():
    A = Gaussian(COLOUR, 30, 0, DOUBLE)
    y = normal(4, 30) * torch.tensor([[1.0], [3], [0], [9]])
    solver = TotalVariation(max_iter=60, tol=0)
    together = recover(A, y, solver)
    alone = torch.cat([recover(A, y[i : i + 1], solver).x for i in range(4)])
    torch.testing.assert_close(together.x, alone)
    assert together.outcomes == ("max_iter reached",) * 2 + ("converged",) + ("max_iter reached",)


def test_rest_asks_that_both_rest():
    """x_1 = x_0 where x_0 fits and λ is tiny; p has yet to move it."""
    A = Inpainting((1, 6, 6), hole=2)
    y = A(normal(1, 1, 6, 6))
    solution = recover(A, y, TotalVariation(penalty=1e-9, tol=1e-3))
    assert solution.status.startswith("converged") and solution.n_iter > 10


def test_any_operator_in_either_dtype():
    x = normal(2, *COLOUR)
    for A in (*operators(COLOUR).values(), operators(COLOUR)["gaussian"].to(torch.float32)):
        dtype = A.matrix.dtype if isinstance(A, MatrixOperator) else DOUBLE
        y = A(x.to(dtype))
        solution = recover(A, y, npgd.TotalVariation(max_iter=300))
        assert solution.x.dtype == dtype
        assert bool((solution.objective[-1] < 1e-3 * squared_norm(y)).all())
        json.dumps(solution.to_dict(), allow_nan=False)


def test_sixty_four_squared_in_colour():
    """12,288 pixels: a dense n×n matrix would take 600 MB in float32."""
    A = SuperResolution((3, 64, 64), 4)
    x = torch.rand(1, 3, 64, 64)
    solution = recover(A, A(x), TotalVariation(max_iter=5))
    assert solution.info["data_step"] == "closed form"


@pytest.mark.parametrize(
    ("settings_", "error", "message"),
    [
        ({"penalty": "large"}, ValueError, 'penalty must be a positive number or "auto"'),
        ({"penalty": 0.0}, ValueError, "penalty must be finite and positive"),
        ({"penalty": [0.1]}, TypeError, "penalty must be a number"),
        ({"step_size": -1.0}, ValueError, "step_size must be finite and positive"),
        ({"max_iter": 0}, ValueError, "max_iter"),
    ],
)
def test_settings_that_make_no_sense_are_named(settings_, error, message):
    with pytest.raises(error, match=message):
        TotalVariation(**settings_)


def test_an_operator_that_is_zero_is_refused():
    with pytest.raises(ValueError, match="A must differ from zero"):
        recover(MatrixOperator(torch.zeros(2, 36), (1, 6, 6)), torch.ones(1, 2), TotalVariation())
