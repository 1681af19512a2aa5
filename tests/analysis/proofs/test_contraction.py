"""What is proved is true: bounds hold at sampled points and in other arithmetic, and no map that
does not contract is proved to."""

import itertools
import math
import runpy
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from torch import nn

import analysis
import npgd
from analysis import testing
from analysis.local.rest import latent_npgd
from analysis.proofs import contraction, networks, save_certificate
from analysis.proofs.certificate import certificate
from analysis.proofs.contraction import OUTCOMES, proved_ball, spectral_norm
from analysis.proofs.enclosure import Enclosure
from analysis.proofs.functions import Logistic, Power
from analysis.proofs.graph import Applied, Graph, Linear, Product, dense
from analysis.proofs.linear import Convolution, Repeated, Scaled, Transposed
from npgd.networks import Corrector
from npgd.networks.rectifier import SmoothRectifier
from npgd.precision import converted

CHECKER = Path(__file__).parents[3] / "docs" / "mathematics" / "check_contraction.py"
K, SHAPE, M = 3, (1, 4, 4), 8
STEP = 0.5


def layers(*sizes, last, seed):
    made = []
    for before, after in itertools.pairwise(sizes):
        linear = nn.Linear(before, after)
        with torch.no_grad():
            linear.weight.copy_(testing.normal(after, before, seed=seed + after) * before**-0.5)
            linear.bias.copy_(0.1 * testing.normal(after, seed=seed + 1))
        made += [linear, SmoothRectifier(5.0, 0.5)]
    return [*made[:-1], *last]


def small_prior(corrections):
    """A smooth generator, and an encoder that is trained on it for a moment."""
    generator = nn.Sequential(*layers(K, 6, 16, last=[nn.Tanh(), nn.Unflatten(1, SHAPE)], seed=0))
    encoder = nn.Sequential(nn.Flatten(), *layers(16, 8, K, last=[], seed=7))
    generator, encoder = generator.double(), encoder.double()
    z = testing.normal(200, K, seed=3)
    x = generator(z).detach()
    for _ in range(150):
        loss = (encoder(x) - z).square().mean()
        for p, g in zip(
            encoder.parameters(),
            torch.autograd.grad(loss, list(encoder.parameters())),
            strict=True,
        ):
            p.data -= 0.2 * g
    corrector = Corrector(K, 8, 0.6).double()
    npgd.networks.corrector.initialise_corrector(corrector, torch.Generator().manual_seed(0))
    return npgd.GenerativePrior(
        generator.requires_grad_(False), encoder.requires_grad_(False), K, SHAPE,
        corrector=corrector.requires_grad_(False), corrections=corrections,
    )  # fmt: skip


@pytest.fixture(scope="module", params=[0, 2])
def proved(request):
    """Prior, operator, measurements, fixed points and the proof."""
    prior = small_prior(request.param)
    A = npgd.Gaussian(SHAPE, M, seed=1).double()
    y = A(prior.sample(2, seed=5)) + 0.3 * testing.normal(2, M, seed=2)
    rest = analysis.fixed_point(A, prior, y, STEP)
    return prior, A, y, rest, analysis.prove_convergence(A, prior, y, rest)


def affine(matrix, shift):
    graph = Graph()
    graph.linear((dense(matrix), graph.input(len(matrix))), constant=shift)
    return graph


def rotation(size, norm, seed):
    return norm * torch.linalg.qr(testing.normal(size, size, seed=seed))[0]


@pytest.mark.parametrize("size", [1, 3, 6])
def test_factor_of_an_affine_map_is_its_norm(size):
    matrix, shift = testing.normal(size, size, seed=size), testing.normal(size, seed=1)
    matrix = 0.9 * matrix / torch.linalg.matrix_norm(matrix, 2)
    fixed = torch.linalg.solve(torch.eye(size, dtype=torch.float64) - matrix, shift)[None]
    ball = proved_ball(affine(matrix, shift), fixed, torch.eye(size, dtype=torch.float64))
    assert 0.9 * (1 - 1e-14) <= ball.factor <= 0.9 * (1 + 1e-9)
    assert ball.radius > 1e6  # all of the space, but for the steps of the search
    assert ball.move <= 1e-12
    assert ball.inside <= ball.radius


def test_no_map_that_stretches_is_proved_to_contract():
    for size in (1, 3, 6):
        graph = affine(rotation(size, 1.0 + 1e-9, size), torch.zeros(size, dtype=torch.float64))
        for scale in (1.0, 100.0):
            shape = scale * torch.eye(size, dtype=torch.float64)
            ball = proved_ball(graph, torch.zeros(1, size, dtype=torch.float64), shape)
            assert ball.radius == 0
            assert math.isnan(ball.factor)


def test_weights_that_are_not_known_exactly_count_in_every_layer():
    graph = Graph()
    x = graph.scaled(graph.input(2), 0.9, error=0.05)
    graph.scaled(x, 0.9, error=0.05)
    zero, one = torch.zeros(1, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    assert (0.9 * 1.05) ** 2 <= proved_ball(graph, zero, one).factor < 1


def test_ball_around_one_fixed_point_does_not_reach_where_the_slope_is_1():
    graph = Graph()
    graph.apply(Logistic(1, 4.0, 2.0, b=-1.0), graph.input(1))  # tanh 2z
    z = torch.tensor([[0.9575040240772687]], dtype=torch.float64)
    ball = proved_ball(graph, z, torch.eye(1, dtype=torch.float64))
    truth = float(z) - math.acosh(2**0.5) / 2  # 2/cosh²(2z) = 1
    assert 0.3 * truth < ball.radius < truth
    nearest = 2 / math.cosh(2 * (float(z) - ball.radius)) ** 2
    assert nearest <= ball.factor < 1
    repelling = proved_ball(graph, torch.zeros(1, 1, dtype=torch.float64), torch.eye(1).double())
    assert repelling.radius == 0


def test_a_centre_away_from_the_fixed_point_needs_a_ball_that_holds_it():
    matrix = rotation(3, 0.5, 0)
    graph = affine(matrix, torch.zeros(3, dtype=torch.float64))
    centre = torch.ones(1, 3, dtype=torch.float64)
    ball = proved_ball(graph, centre, torch.eye(3, dtype=torch.float64))
    assert ball.distance >= float(centre.norm()) * (1 - 1e-9)
    assert ball.move >= float((centre - centre @ matrix.T).norm()) * (1 - 1e-12)


def test_sampled_points_of_a_ball_obey_its_factor_and_stay_inside(proved):
    prior, A, y, rest, proof = proved
    assert bool(proof.proved[rest.rests].all())
    assert float(proof.radius[proof.proved].min()) > 1e-3
    T = latent_npgd(A, prior, y, STEP)
    for i in proof.proved.nonzero().flatten().tolist():
        V, u = proof.shape[i], testing.normal(300, K, seed=i)
        u = u / u.norm(dim=1, keepdim=True) * torch.linspace(0.01, 1, 300).double()[:, None]
        T.y = y[i : i + 1].repeat(300, 1)
        z = proof.centre[i] + proof.radius[i] * u @ V.T
        turned = T.push(z, V.T[:, None].repeat(1, 300, 1)).permute(1, 2, 0)
        norms = torch.linalg.matrix_norm(torch.linalg.inv(V) @ turned, 2)
        assert float(norms.max()) <= float(proof.factor[i]) < 1
        moved = torch.linalg.solve(V, (T(z) - proof.centre[i]).T).norm(dim=0)
        assert float(moved.max()) <= float(proof.radius[i])


def test_limit_is_within_the_distance_and_the_image_within_its_error(proved):
    prior, A, y, rest, proof = proved
    T, z = latent_npgd(A, prior, y, STEP), proof.centre
    for _ in range(300):
        z = T(z)
    known = proof.proved
    off = torch.linalg.solve(proof.shape, (z - proof.centre)[..., None])[..., 0].norm(dim=1)
    assert bool((off <= proof.distance + 1e-13)[known].all())
    missed = (prior.generate(z) - rest.image).flatten(1).norm(dim=1)
    assert bool((missed <= proof.image_error + 1e-13)[known].all())
    assert float(proof.image_error[known].max()) < 1e-7


def test_euclidean_ball_lies_inside(proved):
    proof = proved[-1]
    for i in proof.proved.nonzero().flatten().tolist():
        u = testing.normal(200, K, seed=i)
        u = proof.inside[i] * u / u.norm(dim=1, keepdim=True)
        sizes = torch.linalg.solve(proof.shape[i], u.T).norm(dim=0)
        assert float(sizes.max()) <= float(proof.radius[i])


def exact(graph, z):
    """What every node holds, with 50 digits."""
    held = []
    for node in graph.nodes:
        if isinstance(node, Linear):
            out = [mpmath.mpf(0)] * node.size
            for map, x in zip(node.maps, node.sources, strict=True):
                eye = torch.eye(graph.size(x), dtype=torch.float64)
                rows = map(eye).T.tolist()
                out = [o + mpmath.fdot(zip(row, held[x], strict=True))
                       for o, row in zip(out, rows, strict=True)]  # fmt: skip
            if node.constant is not None:
                out = [o + c for o, c in zip(out, node.constant[0].tolist(), strict=True)]
        elif isinstance(node, Applied):
            out = [phi(node.function, x) for x in held[node.source]]
        elif isinstance(node, Product):
            out = [a * b for a, b in zip(held[node.left], held[node.right], strict=True)]
        else:
            out = z
        held.append(out)
    return held


def phi(f, x, order=0):
    if isinstance(f, Power):
        plain = (lambda t: f.c * mpmath.log(t + f.b)) if f.p == 0 else (
            lambda t: f.c * (t + f.b) ** f.p)  # fmt: skip
    else:

        def plain(t):
            s = f.s * t
            first = mpmath.log1p(mpmath.exp(s)) if f.k == 0 else 1 / (1 + mpmath.exp(-s))
            return f.a * t + f.b + f.c * (first if f.k < 2 else first * (1 - first))

    return mpmath.diff(plain, x, order) if order else plain(x)


def test_bounds_hold_in_arithmetic_of_50_digits():
    prior = small_prior(1)
    A = npgd.Gaussian(SHAPE, M, seed=1).double()
    graph, _ = networks.npgd_graph(A, prior, A(prior.sample(1, seed=5))[0], STEP)
    centre, V = testing.normal(1, K, seed=4), 0.5 * testing.normal(K, K, seed=6)
    made = Enclosure(graph, centre, V, torch.eye(K, dtype=torch.float64))
    k = torch.ones(K, K).triu()
    with mpmath.workdps(50):
        for seed, r in enumerate((0.0, 1e-12, 1e-3, 0.02)):
            over = made.ranges(r)
            u = testing.normal(K, seed=seed)
            u = (0.999 * r / float(u.norm()) * u).tolist()
            z = [mpmath.mpf(c) + mpmath.fdot(zip(row, u, strict=True))
                 for c, row in zip(centre[0].tolist(), V.tolist(), strict=True)]  # fmt: skip
            quadratic = [u[a] * u[b] * (0.5 if a == b else 1) for a, b in k.nonzero().tolist()]
            for n, values in enumerate(exact(graph, z)):
                at, beyond = made.at[n], over.beyond[n][0].tolist()
                bent = at.bent.T.tolist() if at.bent is not None else None
                for i, value in enumerate(values):
                    left = value - float(at.value[0, i])
                    left -= mpmath.fdot(zip(at.along[:, i].tolist(), u, strict=True))
                    if bent is not None:
                        left -= mpmath.fdot(zip(bent[i], quadratic, strict=True))
                        assert abs(left) <= beyond[i], (n, i, r)
                    else:  # Q̂ is gone
                        most = beyond[i] + 0.5 * float(at.bend_length[0, i]) * r * r
                        assert abs(left) <= most * (1 + 1e-12), (n, i, r)


def test_derivatives_lie_within_their_bounds_at_every_node():
    prior = small_prior(2)
    A = npgd.Gaussian(SHAPE, M, seed=1).double()
    graph, _ = networks.npgd_graph(A, prior, A(prior.sample(1, seed=5))[0], STEP)
    centre, V = testing.normal(1, K, seed=4), 0.5 * testing.normal(K, K, seed=6)
    made = Enclosure(graph, centre, V, torch.eye(K, dtype=torch.float64))
    for seed, r in enumerate((1e-6, 1e-3, 0.02)):
        over = made.ranges(r)
        u = testing.normal(K, seed=seed)
        u = r * u / u.norm()
        columns = [
            torch.func.jvp(graph.value, (centre + u @ V.T,), (column[None],))[1] for column in V.T
        ]
        for n, at in enumerate(made.at):
            off = torch.cat([column[n] for column in columns]) - at.along
            most = over.beyond[n][1] + at.bend_length[0] * r
            if n == len(made.at) - 1:
                bent = torch.zeros(K, K, graph.size(n)).double()
                bent[made.pairs[0], made.pairs[1]] = bent[made.pairs[1], made.pairs[0]] = at.bent
                off, most = off - torch.einsum("a,abn->bn", u, bent), over.beyond[n][1]
            assert bool((off.norm(dim=0) <= most + 1e-12 * (1 + at.length[0])).all()), (n, r)


FUNCTIONS = [
    Logistic(0, 30.0, 0.8 / 30, 0.2), Logistic(1, 2.0, 2.0, b=-1.0), Logistic(2, 4.0, 1.5),
    Power(-0.5, b=1e-3), Power(0.0, 0.5), Power(0.5), Power(-1.0, b=1.0),
]  # fmt: skip


@pytest.mark.parametrize("f", FUNCTIONS, ids=str)
def test_derivatives_and_their_bounds_hold_in_arithmetic_of_50_digits(f):
    x = torch.tensor([[0.02, 0.11, 0.5, 1.3, 7.0]], dtype=torch.float64)
    if isinstance(f, Logistic):
        x = torch.cat([-x, x], 1)
    with mpmath.workdps(50):
        for order in (0, 1, 2):
            value, off = f.at(x, order)
            for t, v, e in zip(x[0].tolist(), value[0].tolist(), off[0].tolist(), strict=True):
                assert abs(phi(f, mpmath.mpf(t), order) - v) <= e + 1e-25
        reach = torch.full_like(x, 0.015)
        for order in (2, 3):
            bound = f.most(x, reach, order)[0].tolist()
            for t, most in zip(x[0].tolist(), bound, strict=True):
                for d in (-0.015, -0.007, 0.0, 0.01, 0.015):
                    assert abs(phi(f, mpmath.mpf(t) + d, order)) <= most * (1 + 1e-20) + 1e-18


def test_no_bound_holds_where_a_library_switches_its_softplus():
    f = Logistic(0, limit=20.0)
    x = torch.tensor([[19.0, 19.99, 20.01, 21.0]], dtype=torch.float64)
    bounds = f.most(x, torch.full_like(x, 0.1), 2)[0]
    assert bounds.isfinite().tolist() == [True, False, False, True]
    assert float(bounds[3]) == 0
    assert f.at(x, 0)[0][0, 3] == 21


@pytest.mark.parametrize("map", [
    dense(testing.normal(5, 7)), Scaled(testing.normal(6)), Repeated(3, 4),
    Convolution(testing.normal(3, 2, 3, 3), (2, 7, 6), 2, 1),
    Convolution(testing.normal(3, 2, 4, 4), (2, 8, 8), 2, 1),
    Transposed(Convolution(testing.normal(3, 2, 4, 4), (2, 8, 8), 2, 1)),
], ids=lambda map: type(map).__name__)  # fmt: skip
def test_transpose_is_the_transpose_and_terms_count_the_weights(map):
    m, n = map.size
    forth, back = map(torch.eye(n).double()).T, map.transpose(torch.eye(m).double())
    assert torch.equal(forth, back)
    assert torch.equal(map.absolute()(torch.eye(n).double()).T, forth.abs())
    most = ((forth != 0).sum(1).max(), (forth != 0).sum(0).max())
    assert all(t >= int(c) for t, c in zip(map.terms, most, strict=True))


def test_spectral_norm_is_bounded_from_above():
    for seed in range(20):
        matrix = testing.normal(4, 9, seed=seed)
        truth = float(torch.linalg.matrix_norm(matrix, 2))
        assert truth * (1 - 1e-14) <= spectral_norm(matrix) <= truth * (1 + 1e-9)
    assert spectral_norm(torch.full((2, 2), torch.inf)) == math.inf


def test_graph_of_the_shipped_digits_is_npgd():
    prior = converted(npgd.load_prior("mnist"))
    A = npgd.Gaussian(prior.image_shape, 20).double()
    z = prior.sample_latents(1, seed=1)
    y = A(prior.sample(1, seed=2))
    graph, image = networks.npgd_graph(A, prior, y[0], 0.8)
    held = graph.value(z)
    there = latent_npgd(A, prior, y, 0.8)(z)
    assert float((held[-1] - there).norm()) < 1e-9 * float(there.norm())
    assert float((held[image] - prior.generate(z).flatten(1)).norm()) < 1e-11


def test_layer_without_bounds_is_refused_by_name(proved):
    prior, A, y, rest, _ = proved
    first, _, *others = prior.generator
    kinked = npgd.GenerativePrior(
        nn.Sequential(first, nn.ReLU(), *others),
        prior.encoder, K, SHAPE,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"ReLU.* in its generator"):
        analysis.prove_convergence(A, kinked, y, rest)


def test_point_that_repels_is_not_proved(proved):
    prior, A, y, rest, _ = proved
    far = analysis.fixed_point(A, prior, y, 40.0, max_iter=20)
    proof = analysis.prove_convergence(A, prior, y, far)
    assert not bool((proof.proved & ~(far.rate < 1)).any())
    assert set(proof.outcomes) <= set(OUTCOMES)
    assert rest.rests.shape == proof.radius.shape


def test_summary_says_what_is_assumed(proved):
    proof = proved[-1]
    assert all(text in str(proof) for text in contraction.ASSUMPTIONS)
    assert len(str(proof).splitlines()) <= 20
    assert proof.to_dict()["assumptions"] == list(contraction.ASSUMPTIONS)
    W = proof.metric[0] @ proof.shape[0] @ proof.shape[0].T
    assert torch.allclose(W, torch.eye(K, dtype=torch.float64))


@pytest.fixture(scope="module")
def checker():
    return runpy.run_path(str(CHECKER))["Checker"]


def rewritten(path, **changes):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    for name, change in changes.items():
        arrays[name] = change(arrays[name])
    other = path.with_name("other.npz")
    np.savez(other, **arrays)
    return other


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_checker_accepts_a_certificate_and_none_that_is_changed(proved, checker, tmp_path):
    prior, A, y, _, proof = proved
    image = int(proof.proved.nonzero()[0])
    path = tmp_path / "proof.npz"
    save_certificate(proof, path, A, prior, y, image)
    holds, why = checker(path).check()
    assert holds, why
    weight = next(name for name in np.load(path).files if name.startswith("array"))
    changes = {
        "radius": lambda r: 1.5 * r,
        "factor": lambda q: q - 0.05 * (1 - q),
        "move": lambda d: d / 100,
        "centre": lambda z: z + 1e-3,
        "shape": lambda V: V @ np.diag([10.0, 1.0, 0.1]),
        weight: lambda x: x * 1.01,
    }
    for name, change in changes.items():
        assert not checker(rewritten(path, **{name: change})).check()[0], name


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_checker_accepts_no_map_that_stretches(checker, tmp_path):
    graph = affine(rotation(3, 1.001, 0), torch.zeros(3, dtype=torch.float64))
    claims = {"radius": 1.0, "factor": 0.9999, "move": 1e-9}
    path = tmp_path / "wrong.npz"
    path.write_bytes(certificate(graph, torch.zeros(3).double(), torch.eye(3).double(), claims))
    holds, why = checker(path).check()
    assert not holds
    assert "factor" in why


@pytest.mark.slow
def test_a_run_of_the_digits_is_proved_and_its_certificate_holds(checker, tmp_path):
    prior = converted(npgd.load_prior("mnist"))
    A = npgd.Gaussian(prior.image_shape, 100).double()
    y = A(prior.sample(2, seed=5))[1:]
    rest = analysis.fixed_point(A, prior, y, 0.8)
    proof = analysis.prove_convergence(A, prior, y, rest)
    assert float(proof.radius[0]) > 5e-4
    save_certificate(proof, tmp_path / "proof.npz", A, prior, y)
    holds, why = checker(tmp_path / "proof.npz").check()
    assert holds, why
