"""The set S: what it must offer for what is done with it, and what is said where it does not."""

import pytest
import torch

from analysis.testing import normal, random_affine_set, random_finite_set, random_prior
from npgd import sets
from npgd.projectors import LatentRefinement, LatentSearch

SHAPE = (1, 3, 4)


def affine():
    return random_affine_set(SHAPE, latent_dim=3)


PROTOCOLS = {
    sets.Projectable: (sets.PROJECTABLE, sets.projects),
    sets.Generated: (sets.GENERATED, sets.generates),
    sets.Encoded: (sets.ENCODED, sets.encodes),
    sets.Sampled: (sets.SAMPLED, sets.samples),
    sets.LatentSampled: (sets.LATENT_SAMPLED, sets.samples_latents),
}
IN_RANGE = {sets.Projectable, sets.Generated, sets.Encoded, sets.Sampled}
OFFERED = [
    (affine(), IN_RANGE),
    (random_finite_set(SHAPE, 5), {sets.Projectable, sets.Sampled}),
    (random_prior(SHAPE, 3), set(PROTOCOLS)),
    (LatentSearch(affine(), starts=2, steps=2), IN_RANGE),
    (LatentRefinement(random_prior(SHAPE, 3)), IN_RANGE),
    (lambda w: w, set()),
]


@pytest.mark.parametrize(("S", "offered"), OFFERED, ids=lambda S: type(S).__name__)
def test_the_package_s_own_sets_offer_what_their_protocols_ask_for(S, offered):
    for protocol, (names, asked) in PROTOCOLS.items():
        assert isinstance(S, protocol) == asked(S) == (protocol in offered), protocol
        assert (sets.lacking(S, *names) == ()) == (protocol in offered)


@pytest.mark.parametrize("S", [S for S, _ in OFFERED], ids=lambda S: type(S).__name__)
def test_what_is_offered_has_the_shapes_that_are_promised(S):
    w = normal(2, *SHAPE)
    assert sets.projector(S)(w).shape == w.shape
    if sets.samples(S):
        assert S.sample(4, seed=1).shape == (4, *S.image_shape)
    if sets.generates(S):
        assert S.generate(normal(2, S.latent_dim)).shape == (2, *S.image_shape)
    if sets.encodes(S):
        assert S.encode(w).shape == (2, S.latent_dim)
    if sets.samples_latents(S):
        assert S.sample_latents(4, seed=1).shape == (4, S.latent_dim)


def made(**attributes):
    return type("Mine", (), attributes)()


METHODS = {name: lambda self, *_: None for names, _ in PROTOCOLS.values() for name in names}
WHOLE = METHODS | {"latent_dim": 3, "image_shape": SHAPE}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_name_of_a_protocol_is_needed(protocol):
    names, asked = PROTOCOLS[protocol]
    assert asked(made(**WHOLE)) and isinstance(made(**WHOLE), protocol)
    for name in names:
        rest = {key: value for key, value in WHOLE.items() if key != name}
        assert not asked(made(**rest)) and not isinstance(made(**rest), protocol)
        assert sets.lacking(made(**rest), *names) == (name,)


def test_a_method_that_cannot_be_called_is_lacking():
    assert sets.lacking(made(**WHOLE | {"project": None}), "project") == ("project",)
    assert sets.lacking(made(**WHOLE), *WHOLE) == ()


@pytest.mark.parametrize("name", sorted(WHOLE.keys() - {"project"}))
def test_the_door_says_what_is_missing_what_for_and_what_still_works(name):
    rest = made(**{key: value for key, value in WHOLE.items() if key != name})
    with pytest.raises(TypeError) as refused:
        sets.needs(rest, "project", name, what="a search", name="S")
    assert str(refused.value) == (
        f"S must have `project`, `{name}` for a search, got Mine without `{name}`;"
        f" {sets.REMAINS[name]}"
    )


def test_the_door_is_open_to_what_has_everything_and_names_what_it_cannot_comment_on():
    sets.needs(made(**WHOLE), *WHOLE, what="everything")
    with pytest.raises(TypeError, match=r"got Mine without `corrector`$"):
        sets.needs(made(**WHOLE), "corrector", what="corrections")


def test_a_projector_is_a_method_or_the_callable_itself():
    S = affine()
    w = normal(2, *SHAPE)
    assert sets.projector(S)(w).equal(S.project(w))
    assert sets.projector(abs) is abs
    with pytest.raises(TypeError, match=r"S must have `project\(w\)` or be callable, got 7; lat"):
        sets.projector(7, "S")


def test_a_wrapper_that_hides_a_set_names_it():
    S = torch.nn.DataParallel(random_prior(SHAPE, 3))
    for call in (lambda: sets.projector(S), lambda: LatentRefinement(S)):
        with pytest.raises(TypeError, match=r"got DataParallel without.* its `module` has; give"):
            call()
    # A module with a set inside, and a projection of its own, is one.
    own = torch.nn.Sequential(torch.nn.Identity())
    assert sets.projector(own) is own
