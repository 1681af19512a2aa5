"""Generators and encoders from outside: what they can do, and what is said where they cannot."""

import numpy as np
import pytest
import torch
from torch import nn

import analysis
import npgd
from analysis.testing import normal
from npgd.gauss_newton import jacobian
from npgd.latent import evaluate

SHAPE, K = (1, 4, 4), 3


def generator():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(K, 16), nn.Tanh(), nn.Unflatten(1, SHAPE))


def encoder(out=K):
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, out))


def prior_of(g, e=None):
    return npgd.GenerativePrior(g, e or encoder(), K, SHAPE)


class Several(nn.Module):
    def __init__(self, made):
        super().__init__()
        self.network, self.made = encoder(), made

    def forward(self, w):
        mean = self.network(w)
        return self.made(mean)


class Latent:
    def __init__(self, mean):
        self.mean, self.logvar = mean, mean - 1

    def mode(self):
        return self.mean


class Output:
    def __init__(self, mean):
        self.latent_dist = Latent(mean)


@pytest.mark.parametrize(
    ("made", "output", "message"),
    [
        (lambda z: (z, z - 1), 0, r"a tuple of 0 of \(2, 3\), 1 of \(2, 3\); .*output=0\)"),
        (lambda z: (z[:, :1], z), 1, r".*as_encoder\(encoder, output=1\)"),
        (lambda z: {"mean": z, "logvar": z}, "mean", r"a dict of 'mean' .*output='mean'\)"),
        (Output, "latent_dist.mean", r".*output='latent_dist.mean'\)"),
    ],
)
def test_an_encoder_of_several_outputs_is_told_its_wrapper(made, output, message):
    several = Several(made)
    with pytest.raises(TypeError, match="encoder must give one tensor, got " + message):
        prior_of(generator(), several)
    prior = prior_of(generator(), npgd.as_encoder(several, output=output))
    w = normal(5, *SHAPE).float()
    torch.testing.assert_close(prior.encode(w), several.network(w))


def test_a_method_of_the_output_is_called():
    several = Several(Output)
    w = normal(2, *SHAPE).float()
    got = npgd.as_encoder(several, output="latent_dist.mode")(w)
    torch.testing.assert_close(got, several.network(w))


class Unit(nn.Module):
    """Pixels in [0, 1], both ways."""

    def __init__(self):
        super().__init__()
        self.g, self.e = generator(), encoder()

    def decode(self, z):
        return (self.g(2 * z) + 1) / 2

    def encode(self, w):
        return self.e(w)


def test_pixels_from_0_to_1_are_noticed_and_mapped():
    vae = Unit()
    with pytest.warns(UserWarning, match=r"pixels in \[-1, 1\], got 0.* pixels=\(0, 1\)"):
        prior_of(npgd.as_generator(vae.decode))
    prior = prior_of(
        npgd.as_generator(vae.decode, pixels=(0, 1)), npgd.as_encoder(vae.encode, pixels=(0, 1))
    )
    z = prior.sample_latents(4, seed=0)
    torch.testing.assert_close(prior.generate(z), vae.g(2 * z))
    w = prior.generate(z)
    torch.testing.assert_close(prior.encode(w), vae.e((w + 1) / 2))
    double = prior.double()  # the method's own weights go along
    assert double.generate(z.double()).dtype == torch.float64


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = generator()

    def forward(self, z):
        x = self.network(z)
        return x + 0.1 * torch.randn_like(x)


def test_chance_is_noticed_and_draws_nothing_of_the_caller():
    g, e = Noisy(), encoder()
    before = torch.random.get_rng_state()
    with pytest.raises(ValueError, match="generator must give the same for the same input, got"):
        prior_of(g, e)
    assert torch.equal(torch.random.get_rng_state(), before)


class Single(nn.Module):
    """Knows float32 alone."""

    def __init__(self):
        super().__init__()
        self.network = generator()

    def forward(self, z):
        return self.network(z + torch.zeros(z.shape, dtype=torch.float32))


class Rounding(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = generator()

    def forward(self, z):
        return self.network(z).float()


@pytest.mark.parametrize("network", [Single(), Rounding()])
def test_a_generator_of_one_precision_is_named_and_then_kept_in_it(network):
    z = normal(3, K)
    if isinstance(network, Rounding):
        with pytest.raises(TypeError, match=r"in torch.float64 .* got torch.float32; .*dtype="):
            prior_of(network).double().generate(z)
    prior = prior_of(npgd.as_generator(network.float(), dtype=torch.float32)).double()
    assert prior.dtype == torch.float64
    assert next(network.parameters()).dtype == torch.float32
    x = prior.generate(z)
    assert x.dtype == torch.float64
    torch.testing.assert_close(x.float(), network(z.float()))
    exact = prior_of(generator()).double()
    torch.testing.assert_close(jacobian(prior, z), jacobian(exact, z), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "make", [torch.jit.script, lambda g: torch.jit.trace(g, torch.zeros(2, K))]
)
@pytest.mark.filterwarnings("ignore")
def test_torchscript_generates_differentiates_and_recovers(make):
    plain, scripted = prior_of(generator()), prior_of(make(generator().eval()))
    z = plain.sample_latents(3, seed=0)
    torch.testing.assert_close(scripted.generate(z), plain.generate(z))
    torch.testing.assert_close(jacobian(scripted, z), jacobian(plain, z))
    A, x = npgd.Gaussian(SHAPE, m=8, seed=0), plain.generate(z)
    runs = [npgd.recover(A, A(x), npgd.NPGD(p, max_iter=3)).x for p in (plain, scripted)]
    torch.testing.assert_close(runs[0], runs[1])


class MakesZeros(nn.Module):
    """A convolution of zeros that it makes itself: traced, they keep the dtype of the trace."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, z):
        zeros = torch.zeros(z.shape[0], *SHAPE)
        return self.conv(zeros + z.float().sum(1)[:, None, None, None])


@pytest.mark.filterwarnings("ignore")
def test_a_traced_network_of_one_precision_is_named_in_one_sentence():
    traced = torch.jit.trace(MakesZeros(), torch.zeros(2, K))
    prior = prior_of(traced)
    with pytest.raises(TypeError, match=r"got Input type .* weight type .*dtype=torch.float32"):
        prior.double().generate(torch.zeros(2, K, dtype=torch.float64))


def arrays(network):
    inner = network.eval()

    def run(x: np.ndarray) -> np.ndarray:
        assert isinstance(x, np.ndarray) and x.dtype == np.float32
        with torch.no_grad():
            return inner(torch.from_numpy(x)).numpy()

    return run


def test_functions_of_arrays_project_and_are_refused_by_name_where_a_gradient_is_asked():
    plain = prior_of(generator())
    prior = prior_of(
        npgd.as_generator(arrays(generator()), arrays=True),
        npgd.as_encoder(arrays(encoder()), arrays=True),
    )
    z = prior.sample_latents(3, seed=0)
    torch.testing.assert_close(prior.generate(z), plain.generate(z))
    A, x = npgd.Gaussian(SHAPE, m=8, seed=0), plain.generate(z)
    settings = {"finish": 0, "max_iter": 3, "step_size": 0.5}
    runs = [npgd.recover(A, A(x), npgd.NPGD(p, **settings)).x for p in (plain, prior)]
    torch.testing.assert_close(runs[0], runs[1])
    wanted = "generator must be made of torch's operations .* got run of numpy arrays"
    with pytest.raises(TypeError, match=wanted):
        jacobian(prior, z)
    with pytest.raises(TypeError, match=wanted):
        evaluate(prior, z, A(x), A)
    assert prior.double().generate(z.double()).dtype == torch.float64


def test_a_generator_without_gradients_is_refused_by_name():
    class Cut(nn.Module):
        def forward(self, z):
            return z.detach().sum(1).reshape(-1, 1, 1, 1).expand(-1, *SHAPE)

    prior, z = prior_of(Cut()), torch.zeros(2, K)
    with pytest.raises(TypeError, match="prior must let gradients through G"):
        evaluate(prior, z, torch.zeros(2, 16), lambda x: x.flatten(1))


class Autoencoder(nn.Module):
    """As diffusers' AutoencoderKL: latents are images, outputs are objects, 4 × downsampling."""

    class Sample(dict):
        @property
        def sample(self):
            return self["sample"]

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.SiLU(), nn.Conv2d(8, 8, 1))
        self.up = nn.Sequential(
            nn.Conv2d(4, 8, 1), nn.GroupNorm(2, 8), nn.SiLU(), nn.ConvTranspose2d(8, 3, 4, 4)
        )

    def encode(self, w):
        return Output(self.down(w).chunk(2, dim=1)[0])

    def decode(self, z):
        return self.Sample(sample=self.up(z))


def test_an_autoencoder_whose_latents_are_images():
    torch.manual_seed(0)
    vae = Autoencoder()
    prior = npgd.GenerativePrior(
        npgd.as_generator(vae.decode, latent_shape=(4, 4, 4), output="sample"),
        npgd.as_encoder(vae.encode, output="latent_dist.mode"),
        latent_dim=64,
        image_shape=(3, 16, 16),
    )
    z = prior.sample_latents(2, seed=0)
    torch.testing.assert_close(prior.generate(z), vae.up(z.reshape(2, 4, 4, 4)))
    w = prior.generate(z)
    torch.testing.assert_close(prior.encode(w), vae.down(w)[:, :4].flatten(1))
    assert jacobian(prior, z).shape == (2, 64, 3, 16, 16)
    A = npgd.Gaussian(prior.image_shape, m=100, seed=0)
    solution = npgd.recover(A, A(w), npgd.NPGD(prior, max_iter=4))
    assert bool(solution.x.isfinite().all())
    with pytest.raises(ValueError, match=r"npgd\.as_generator adapts networks of other forms"):
        npgd.GenerativePrior(vae.up, vae.down, 64, (3, 16, 16))


class Mapping(nn.Module):
    """As StyleGAN2: z to w by an MLP, a constant input, modulation, noise unless it is told not."""

    def __init__(self):
        super().__init__()
        self.z_dim = 8
        self.mapping = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(0.2), nn.Linear(16, 16))
        self.const = nn.Parameter(torch.randn(1, 16, 4, 4))
        self.rgb = nn.Conv2d(16, 3, 1)

    def forward(self, z, c=None, noise_mode="random"):
        w = self.mapping(z / z.square().mean(1, keepdim=True).sqrt())
        x = self.const * (1 + w[:, :, None, None])
        if noise_mode == "random":
            x = x + 0.1 * torch.randn_like(x)
        return self.rgb(nn.functional.interpolate(x, scale_factor=2.0))


class Const(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, z):
        return self.network(z, None, noise_mode="const")


def test_a_style_generator_with_its_noise_fixed():
    torch.manual_seed(0)
    style, untrained = Mapping(), nn.Sequential(nn.Flatten(), nn.Linear(192, 8))
    with pytest.raises(ValueError, match="noise_mode='const'"):
        npgd.GenerativePrior(style, untrained, 8, (3, 8, 8))
    prior = npgd.GenerativePrior(Const(style), untrained, 8, (3, 8, 8))
    x = prior.sample(3, seed=0)
    found = npgd.LatentSearch(prior, starts=2, steps=20).search(x)[1]
    assert bool(found.isfinite().all())


def hooked_by_old_norms():
    g = generator()
    torch.nn.utils.weight_norm(g[0])
    return g


def exported():
    batch = {0: torch.export.Dim("batch", min=1, max=10**4)}
    return torch.export.export(generator(), (torch.zeros(3, K),), dynamic_shapes=(batch,)).module()


class Then(nn.Module):
    def __init__(self, after, network=None):
        super().__init__()
        self.network, self.after = network or generator(), after

    def forward(self, z):
        return self.after(self.network(z))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make",
    [
        hooked_by_old_norms,
        exported,
        lambda: nn.DataParallel(generator()),
        lambda: npgd.as_generator(Then(lambda x: x.flatten(1)), image_shape=SHAPE),
        lambda: npgd.as_generator(Then(lambda x: x[:, 0]), image_shape=SHAPE),
        lambda: npgd.as_generator(Then(lambda x: x.movedim(1, -1)), channels_last=True),
    ],
)
def test_networks_of_many_kinds_are_copied_converted_and_differentiated(make):
    plain, other = prior_of(generator()), prior_of(make())
    z = plain.sample_latents(3, seed=0)
    torch.testing.assert_close(other.generate(z), plain.generate(z))
    torch.testing.assert_close(jacobian(other, z), jacobian(plain, z))
    assert (
        analysis.estimate_rec(
            npgd.Gaussian(SHAPE, 8), other, analysis.RecSettings(20, 2, 2, 2)
        ).beta
        > 0
    )


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Then(lambda x: x / 0), "what generator gives must be finite"),
        (Then(lambda x: x - x.mean(0)), "generator must map an input alone as among others"),
        (
            nn.Sequential(
                nn.Linear(K, 16),
                nn.BatchNorm1d(16, track_running_stats=False),
                nn.Unflatten(1, SHAPE),
            ),
            "generator must take batches of any size, .* of one says",
        ),
        (nn.Sequential(Then(lambda z: z.mul_(2), nn.Identity()), generator()), "leave its input"),
        (generator().to("meta"), "generator must have its weights"),
        (generator().half(), r"generator must be float32 or float64, .*generator\.float\(\)"),
        (generator().double(), r"encoder must be torch\.float64 as the generator is"),
        (Then(lambda x: x.flatten(1)), r"image_shape=\(1, 4, 4\)\) reshapes it"),
        (Then(lambda x: x.movedim(1, -1)), r"channels_last=True\) turns it"),
        (Then(lambda x: x[:1]), "npgd.as_generator adapts networks"),
        (npgd.as_generator(Then(lambda x: {"x": x}), output="y"), "output must be .*'x'.* got 'y'"),
    ],
)
def test_networks_that_do_not_fit_are_refused_by_name(network, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        prior_of(network)
    assert "\n" not in str(caught.value)


def test_images_are_turned_and_flattened_both_ways():
    shape = (3, 2, 4)
    torch.manual_seed(0)
    g, e = nn.Linear(K, 24), nn.Linear(24, K)
    prior = npgd.GenerativePrior(
        npgd.as_generator(g, image_shape=shape, channels_last=True),
        npgd.as_encoder(e, flat=True, channels_last=True),
        K,
        shape,
    )
    z = prior.sample_latents(2, seed=0)
    x = prior.generate(z)
    torch.testing.assert_close(x, g(z).reshape(2, 2, 4, 3).movedim(-1, 1))
    torch.testing.assert_close(prior.encode(x), e(g(z)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"image_shape": (4, 4)}, ValueError, "image_shape must be"),
        ({"channels_last": 1}, TypeError, "channels_last must be"),
        ({"network": generator().half()}, TypeError, "network must be float32 or float64"),
        ({"network": 3}, TypeError, "network must be a module or function"),
        ({"pixels": (1, 0)}, ValueError, "pixels must be"),
        ({"pixels": "01"}, TypeError, "pixels must be"),
        ({"output": 0.5}, TypeError, "output must be"),
        ({"dtype": torch.int64}, TypeError, "dtype must be"),
        ({"arrays": 1}, TypeError, "arrays must be"),
        ({"latent_shape": 4}, TypeError, "latent_shape must be"),
        ({"latent_shape": (0, 4)}, ValueError, "latent_shape must be"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        npgd.as_generator(**{"network": generator(), **arguments})
