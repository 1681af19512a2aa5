"""Projections are nearest points: exactly so on affine and finite sets, at best so by search."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import npgd
from analysis import testing
from analysis.testing import normal
from npgd.images import inner, norm, squared_norm
from npgd.projectors import AffineSet, FiniteSet, LatentRefinement, LatentSearch

DOUBLE = torch.float64
SHAPE = (1, 3, 4)


def curved():
    """A curved surface, with an encoder that is of little help."""
    return testing.random_prior(SHAPE, latent_dim=2)


@settings(max_examples=30)
@given(
    w=testing.images(SHAPE),
    S=testing.affine_sets(SHAPE, latent_dim=st.integers(1, 12)),
    seed=testing.seeds,
)
def test_affine_projection_is_the_nearest_point(w, S, seed):
    """A projector, whose error w − P(w) is orthogonal to the set, and P = G∘G†."""
    testing.check_projector(S, w, members=S.sample(9, seed=seed))
    p = S.project(w)
    torch.testing.assert_close(S.generate(S.encode(w)), p, rtol=1e-6, atol=1e-6)
    along = S.sample(len(w), seed=seed) - p
    product = inner(w - p, along)
    assert bool((product.abs() <= 1e-10 * (norm(w) + 1) * norm(along)).all())


def test_affine_encode_inverts_generate():
    S = testing.random_affine_set(SHAPE, latent_dim=3)
    z = normal(6, 3, seed=9)
    torch.testing.assert_close(S.encode(S.generate(z)), z)


def test_samples_follow_their_seed_and_lie_in_the_set():
    for S in (testing.random_affine_set(SHAPE, latent_dim=3), FiniteSet(normal(7, *SHAPE))):
        x = S.sample(20, seed=4)
        torch.testing.assert_close(S(x), x)
        assert torch.equal(x, S.sample(20, generator=torch.Generator().manual_seed(4)))
        assert not torch.equal(x, S.sample(20, seed=5))


@settings(max_examples=30)
@given(w=testing.images(SHAPE), S=testing.finite_sets(SHAPE, count=st.integers(1, 40)))
def test_finite_projection_is_the_nearest_point(w, S):
    testing.check_projector(S, w, members=S.points)
    for i, p in enumerate(S(w)):
        assert torch.equal(p, S.points[int(squared_norm(S.points - w[i]).argmin())])
    assert torch.equal(S(S.points), S.points)


def test_ties_go_to_the_last_in_the_order():
    points = torch.zeros(4, 1, 1, 2, dtype=DOUBLE)
    points[:, 0, 0] = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, 3]])
    w = torch.zeros(1, 1, 1, 2, dtype=DOUBLE)
    S = FiniteSet(points)
    assert torch.equal(S(w)[0], points[2])
    for order in ([2, 0, 1, 3], [3, 2, 0, 1]):
        assert torch.equal(S.project(w, torch.tensor(order))[0], points[1])
    assert torch.equal(S.project(w, torch.tensor([1, 2, 3, 0]))[0], points[0])


@settings(max_examples=30)
@given(
    w=testing.images(SHAPE, scale=1.0),
    S=testing.finite_sets(SHAPE, count=30, tie_tol=st.floats(0, 20)),
    order=st.permutations(range(30)),
)
def test_tie_tolerance_is_delta(w, S, order):
    """Whatever the order, the point chosen is within δ of the least squared distance."""
    order = torch.tensor(order)
    testing.check_projector(
        lambda w: S.project(w, order), w, delta=S.tie_tol, members=FiniteSet(S.points)
    )


def test_search_reaches_the_projection_onto_an_affine_set():
    basis = torch.linalg.qr(normal(12, 3))[0] * torch.tensor([0.5, 1.0, 2.0], dtype=DOUBLE)
    S = AffineSet(basis, normal(12, seed=1), SHAPE)
    parts = {"generate": staticmethod(S.generate), "latent_dim": 3, "image_shape": SHAPE}
    S_without_encoder = type("G", (), parts)()
    w = normal(4, *SHAPE, seed=2)
    z, distance = LatentSearch(S_without_encoder, starts=3, steps=800).search(w)
    torch.testing.assert_close(distance, squared_norm(w - S(w)), rtol=1e-6, atol=0)
    torch.testing.assert_close(z, S.encode(w), rtol=1e-3, atol=1e-3)


@settings(max_examples=15)
@given(
    prior=testing.priors(SHAPE, latent_dim=2),
    seed=testing.seeds,
    starts=st.integers(1, 5),
    steps=st.integers(0, 20),
    rate=st.floats(1e-3, 1e3),
)
def test_search_is_never_worse_than_its_best_start(prior, seed, starts, steps, rate):
    """Even where the learning rate is absurd; and it reports the distance of what it returns."""
    w, given_z = 2 * normal(3, *SHAPE, seed=seed), normal(2, 3, 2, seed=seed + 1)
    search = LatentSearch(prior, starts, steps, rate, seed=seed % 1000)
    z, distance = search.search(w, given_z)
    torch.testing.assert_close(distance, squared_norm(w - prior.generate(z)))
    candidates = torch.cat([given_z, search._starts(w)])
    for start in candidates:
        assert bool((distance <= squared_norm(w - prior.generate(start)) + 1e-9).all())
    assert bool((search.search(w, z[None])[1] <= distance + 1e-9).all())


def test_search_improves_on_the_encoder():
    prior = curved()
    w = prior.sample(8, seed=1)
    poor = squared_norm(w - prior.project(w))
    found = squared_norm(w - LatentSearch(prior, starts=8, steps=300)(w))
    assert float(found.median()) < 1e-6 < 1e-2 * float(poor.median())


def test_search_leaves_the_generator_alone():
    prior = curved().requires_grad_(True)
    z, distance = LatentSearch(prior, starts=2, steps=5).search(normal(2, *SHAPE))
    assert all(p.grad is None and p.requires_grad for p in prior.parameters())
    assert not z.requires_grad and not distance.requires_grad


def test_search_does_not_depend_on_the_batch_nor_on_its_chunks():
    prior, w = curved(), normal(5, *SHAPE)
    whole = LatentSearch(prior, starts=3, steps=50).search(w)
    chunked = LatentSearch(prior, starts=3, steps=50, rows=4).search(w)
    single = [LatentSearch(prior, starts=3, steps=50).search(w[i : i + 1]) for i in range(5)]
    for part in (0, 1):
        torch.testing.assert_close(whole[part], chunked[part])
        torch.testing.assert_close(whole[part], torch.cat([s[part] for s in single]))
    assert torch.equal(whole[0], LatentSearch(prior, starts=3, steps=50).search(w)[0])


def test_samples_of_a_prior_that_draws_none_are_refused_with_what_remains():
    """LatentSearch works on G alone; what it cannot do without `sample` is said when asked."""
    S = testing.random_affine_set(SHAPE, latent_dim=3)
    parts = {"generate": staticmethod(S.generate), "latent_dim": 3, "image_shape": SHAPE}
    G = type("G", (), parts)
    search = LatentSearch(G(), starts=2, steps=1)
    assert search.project(normal(2, *SHAPE)).shape == (2, *SHAPE)
    with pytest.raises(TypeError, match=r"for samples, got G without `sample`; with images of"):
        search.sample(3, seed=0)
    with pytest.raises(TypeError, match=r"for LatentRefinement, got G without `encode`; proj"):
        LatentRefinement(G())


def test_a_bar_changes_nothing_of_the_search(capfd):
    prior, w = curved(), normal(3, *SHAPE)
    shown = LatentSearch(prior, starts=2, steps=5, progress=True).search(w)
    hidden = LatentSearch(prior, starts=2, steps=5).search(w)
    assert all(torch.equal(a, b) for a, b in zip(shown, hidden, strict=True))
    assert capfd.readouterr().out == ""


S, W = testing.random_affine_set(SHAPE, latent_dim=3), torch.zeros(2, *SHAPE, dtype=DOUBLE)
NO_RANK = torch.ones(12, 2, dtype=DOUBLE)


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: AffineSet(normal(11, 3), normal(12), SHAPE), ValueError, "basis must have shape"),
        (lambda: AffineSet(normal(12, 13), normal(12), SHAPE), ValueError, "basis must have shape"),
        (lambda: AffineSet(NO_RANK, normal(12), SHAPE), ValueError, "basis must have full"),
        (lambda: AffineSet(0 * NO_RANK, normal(12), SHAPE), ValueError, "basis must have full"),
        (lambda: AffineSet(NO_RANK / 0, normal(12), SHAPE), ValueError, "basis must be finite"),
        (lambda: AffineSet(normal(12, 3), normal(11), SHAPE), ValueError, "offset must have shape"),
        (lambda: S(W[0]), ValueError, "w must have shape"),
        (lambda: S.sample(3), ValueError, "one of generator and seed"),
        (lambda: FiniteSet(normal(3, 12)), ValueError, "points must have shape"),
        (lambda: FiniteSet(normal(3, *SHAPE) / 0), ValueError, "points must be finite"),
        (lambda: FiniteSet(normal(3, *SHAPE), tie_tol=-1), ValueError, "tie_tol"),
        (lambda: FiniteSet(W).project(W, torch.tensor([0, 0])), ValueError, "prefer must list"),
        (lambda: FiniteSet(W).project(W, torch.tensor([0])), ValueError, "prefer must list"),
        (lambda: LatentSearch(FiniteSet(W)), TypeError, "prior must have `generate`"),
        (lambda: LatentSearch(S, starts=0), ValueError, "starts"),
        (lambda: LatentSearch(S, steps=-1), ValueError, "steps"),
        (lambda: LatentSearch(S, learning_rate=0.0), ValueError, "learning_rate"),
        (lambda: LatentSearch(S).search(W / 0), ValueError, "w must be finite"),
        (lambda: LatentSearch(S).search(W, normal(1, 3, 3)), ValueError, "given must have shape"),
    ],
)
def test_wrong_arguments_stop_at_the_door(call, error, named):
    with pytest.raises(error, match=named):
        call()


class Mlp(torch.nn.Module):
    """A plain decoder with random weights, curved."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(5, 40), torch.nn.ReLU(), torch.nn.Linear(40, 64), torch.nn.Tanh()
        )

    def forward(self, z):
        return self.layers(2 * z).reshape(-1, 1, 8, 8)


class Decoded:
    """A generator without encoder."""

    latent_dim, image_shape = 5, (1, 8, 8)

    def __init__(self):
        self.network = Mlp().requires_grad_(False)

    def generate(self, z):
        return self.network(z)


def test_refinement_is_as_exact_under_autocast():
    prior = npgd.load_prior("mnist")
    w = prior.sample(2, seed=0) + 0.1 * normal(2, 1, 28, 28).float()
    S = LatentRefinement(prior, steps=1)
    exact = S.project(w)
    with torch.autocast("cpu", torch.bfloat16):
        assert S.project(w).equal(exact)
        assert S.project(w.bfloat16()).dtype == torch.float32
        assert prior.project(w).isfinite().all()  # corrections, and an encoder in half precision


def test_draws_make_up_for_an_encoder():
    G = Decoded()
    x = G.generate(normal(6, 5).float())
    distances = []
    for starts, tries in ((1, 1), (64, 1), (64, 8)):
        P = LatentRefinement(G, steps=2, starts=starts, tries=tries)
        z, found = P.refined(x)
        torch.testing.assert_close(found, G.generate(z), rtol=0, atol=1e-6)
        assert torch.equal(P.project(x[:2]), P.refined(x[:2])[1])
        distances.append((found - x).square().sum())
    assert distances[1] < distances[0] and distances[2] < distances[0]
    near = LatentRefinement(G, steps=1, starts=1).refined(x, normal(6, 5).float() * 1.0)
    assert float((near[1] - x).abs().max()) < 1e-4  # it starts from the latents of x
    with pytest.raises(TypeError, match="for LatentRefinement, got Decoded without `encode`"):
        LatentRefinement(G)
    with pytest.raises(ValueError, match="near must hold 6 latents as w images, got 2"):
        P.refined(x, torch.zeros(2, 5))


def test_npgd_starts_each_search_where_the_last_one_ended():
    G = Decoded()
    x = G.generate(normal(6, 5).float())
    A = npgd.Gaussian(G.image_shape, m=24, seed=0)
    solver = npgd.NPGD(LatentRefinement(G, starts=8), step_size=1.0, max_iter=15)
    errors = npgd.recover(A, A(x), solver, x_true=x).error[-1]
    assert float(errors.median()) < 1e-5
