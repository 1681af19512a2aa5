"""What to change in a recovery: every candidate is tried on the problem at hand, and its gain told.

Candidates are other solvers on the same data, and other data: more measurements, a designed A,
less noise. Each is one run on these images with this draw of A; a gain is the error per pixel,
‖x̂ − x*‖²/n, of NPGD(prior) minus that with the change, image by image. It counts as more than
chance if a one-sided signed-rank test over the images says so (Wilcoxon 1945) at the level `LEVEL`,
which takes at least seven images. All of this needs x*.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch

from analysis.design import design_secant_pca
from analysis.limits import fitting, moments, per_pixel
from analysis.memory import gigabytes, memory_of, passing_within
from analysis.methods import BASELINES, Method, algorithm, algorithm_name, solver_of
from analysis.words import about, at_most, out_of, sentence
from npgd import checks, sets
from npgd.denoisers import fitting_name
from npgd.files import plain
from npgd.images import Images, Measurements, PerImage, norm
from npgd.operators import Gaussian, LinearOperator, Radon, StructuredRandom, SuperResolution
from npgd.precision import plainly
from npgd.sets import ImageSet
from npgd.showing import Drawn, Shown
from npgd.solvers import NPGD, Solution, recover
from npgd.solvers.base import Solver
from npgd.solvers.projecting import finishes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVEL = 0.01
"""Of the test whether a gain is more than chance."""
FINISH, REFINE = 40, 5
"""Steps on the latent that are tried, quasi-Newton's and Gauss and Newton's,"""
STEPS = 50
"""of so many iterations."""
LONGER = 5
"""How many times the default's iterations are tried, where these were too few to settle."""
SMALL = 2**12
"""Pixels up to which Gauss–Newton steps and a designed A are tried by default;"""
LARGE = 2**16
"""above so many, effort "quick" runs nothing, and judges what was run already."""
EXACT = 1e-9
"""Errors per pixel below, of images on [−1, 1], leave nothing to gain."""
WITHOUT_PRIOR = tuple(BASELINES.values())
"""The candidates that know nothing of the prior."""


@dataclass(frozen=True)
class Change:
    """Something to do otherwise, and how."""

    name: str
    """In one or two words."""
    words: str
    """As an imperative."""
    python: str
    """The solver or operator, as Python makes it."""
    options: Mapping[str, str | None] = field(default_factory=dict)
    """What it changes in the options of `npgd recover`; None leaves one out."""
    before: str = ""
    """A command that must come before, without the name of the prior."""
    data: bool = False
    """Whether it takes other measurements."""

    @property
    def folder(self) -> str:
        """A name for what comes of it."""
        return self.name.replace(" ", "-")

    def command(self, given: Mapping[str, str | None]) -> str:
        """As commands, one a line, after `npgd recover` with the options given."""
        options = {**given, **self.options, "--output": self.folder}
        words = [f"{name} {value}".strip() for name, value in options.items() if value is not None]
        prior = f" --prior {given['--prior']}" if self.before and given.get("--prior") else ""
        lines = [f"{self.before}{prior}"] if self.before else []
        return "\n".join([*lines, " ".join(["npgd recover", *words])])


@dataclass(frozen=True, eq=False)
class Trial(Shown):
    """A change, and the errors without and with it."""

    change: Change
    without: PerImage
    """‖x̂ − x*‖²/n of NPGD(prior), per image,"""
    error: PerImage
    """and of the run with the change."""
    seconds: float
    """Of that run, for all images."""
    x: Images
    """What it recovered."""

    @property
    def gain(self) -> PerImage:
        """How much lower the error is, per image; negative where it is higher."""
        return self.without - self.error

    @property
    def chance(self) -> float:
        """p of the signed-rank test: how often chance alone would show such a gain."""
        from scipy.stats import wilcoxon

        gain = self.gain[self.gain != 0]
        if len(gain) == 0:
            return 1.0
        return float(wilcoxon(gain.numpy(), alternative="greater").pvalue)

    @property
    def gains(self) -> bool:
        """Whether the mean error is lower, and by more than chance."""
        return float(self.gain.mean()) > 0 and self.chance <= LEVEL

    def __str__(self) -> str:
        before, after = float(self.without.mean()), float(self.error.mean())
        better = out_of(int((self.gain > 0).sum()), len(self.gain))
        return f"error {about(before)} → {about(after)}{_share(before, after)}, lower for {better}"

    def to_dict(self) -> dict[str, Any]:
        mean, error = moments(self.gain)
        found: dict[str, Any] = plain(
            {
                "name": self.change.name,
                "change": self.change.words,
                "python": self.change.python,
                "options": dict(self.change.options),
                "before": self.change.before,
                "other_data": self.change.data,
                "error": self.error,
                "mean_without": float(self.without.mean()),
                "mean_with": float(self.error.mean()),
                "gain": mean,
                "standard_error": error,
                "chance": self.chance,
                "more_than_chance": self.gains,
                "seconds": self.seconds,
            }
        )
        return found


def _share(before: float, after: float) -> str:
    """How much less, rounded down."""
    if not 0 <= after < before:
        return ""
    share = math.floor(100 * (1 - after / before))
    return f" ({share} % less)" if share else ""


@dataclass(frozen=True, eq=False)
class Advice(Drawn):
    """Everything that was tried, and what follows."""

    error: PerImage
    """‖x̂ − x*‖²/n of NPGD(prior), per image."""
    trials: tuple[Trial, ...]
    """In the order in which they were run."""
    without: dict[str, str]
    """Why a candidate was not tried, or has no finite error, by its name."""
    run: str = "NPGD(prior)"
    """What the changes are changes of."""

    @cached_property
    def ranked(self) -> tuple[Trial, ...]:
        """What gains more than chance: what needs no other data first, then by the mean error."""
        good = [trial for trial in self.trials if trial.gains] if not self.exact else []
        return tuple(sorted(good, key=lambda t: (t.change.data, float(t.error.mean()))))

    @property
    def best_without_prior(self) -> Trial | None:
        """Of the candidates that know nothing of the prior, the one with the least mean error."""
        found = [trial for trial in self.trials if trial.change.name in WITHOUT_PRIOR]
        return min(found, key=lambda t: float(t.error.mean()), default=None)

    @property
    def exact(self) -> bool:
        """Whether there is nothing to gain."""
        return bool((self.error <= EXACT).all())

    @property
    def status(self) -> str:
        """The first advice in words, or why there is none."""
        if self.exact:
            most = at_most(float(self.error.max()), 2)
            return f"nothing is left to gain: the error is at most {most} a pixel"
        if not self.trials:
            return "no change was tried"
        if self.ranked:
            first = self.ranked[0]
            return f"{first.change.words}: {first}"
        tried = f"none of {len(self.trials)} changes tried lowers the error by more than chance"
        few = f" (with {len(self.error)} image{'s' * (len(self.error) > 1)} none could)"
        best = min(self.trials, key=lambda t: (t.change.data, float(t.error.mean())))
        if not float(best.gain.mean()) > 0:
            return tried
        least = f"; the least error seen is that of {best.change.name}: {best}"
        return f"{tried}{few if self.few else ''}{least}; more images would tell"

    @property
    def few(self) -> bool:
        """Whether no gain could be told from chance, since there are too few images."""
        return 0.5 ** len(self.error) > LEVEL

    @property
    def rest(self) -> str:
        """What did not gain, by name; empty where all did."""
        names = [
            f"{trial.change.name} ({about(float(trial.error.mean()))})"
            for trial in self.trials
            if trial not in self.ranked
        ]
        return ", ".join(names)

    def draw(self, axis: Axes) -> None:
        """The mean error of every candidate, and a line where that of NPGD(prior) is."""
        ranked = sorted(self.trials, key=lambda trial: float(trial.error.mean()))
        pairs = [moments(trial.error) for trial in ranked]
        known = [error if math.isfinite(error) else 0.0 for _, error in pairs]
        names = [trial.change.name for trial in ranked]
        axis.barh(names, [mean for mean, _ in pairs], xerr=known, color="#999999")
        axis.axvline(float(self.error.mean()), color="#D55E00", label=self.run)
        axis.invert_yaxis()
        axis.set(xlabel="error per pixel")
        axis.legend(frameon=False)

    def __str__(self) -> str:
        lines = [f"{self.run}: error {about(float(self.error.mean()))} per pixel (mean)"]
        for i, trial in enumerate(self.ranked, 1):
            lines += [f"{i}. {trial.change.words}: {trial}", f"   {trial.change.python}"]
        if not self.ranked:
            lines.append(sentence(self.status))
        if self.rest and not self.exact:
            lines.append(f"Not beyond chance: {self.rest}.")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = plain(
            {
                "status": self.status,
                "error": self.error,
                "advice": [trial.change.name for trial in self.ranked],
                "trials": [trial.to_dict() for trial in self.trials],
                "without": dict(self.without),
                "level": LEVEL,
            }
        )
        return found


@plainly
@torch.no_grad()
def advise(
    A: LinearOperator,
    prior: ImageSet,
    images: Images,
    y: Measurements,
    solution: Solution | None = None,
    *,
    effort: str = "default",
    noise: float = 0.0,
    more: LinearOperator | None = None,
    only: Collection[str] | None = None,
    tried: Mapping[str, Solution] | None = None,
    seed: int = 0,
    progress: bool = False,
    memory: int | str | None = None,
) -> Advice:
    """Try what may lower the error of NPGD(prior), and say what each change gains.

    What is changed is Algorithm 1 at NPGD's defaults (`finish=0`), of which the theory speaks.

    On the same data: more iterations, the end of the run on the latent (`finish`, `refine`),
    message passing where A is `npgd.Gaussian`, an image near the range (`npgd.Deviation`), and
    total variation and plug-and-play ADMM, which know nothing of the prior. With other data: twice
    the measurements of a `Gaussian` or `StructuredRandom`, twice the angles of a `Radon`, half the
    factor of a `SuperResolution`, or `more`; as many measurements by a secant-PCA design; half the
    noise.

    Other measurements have as much noise in relation to A x* as y has.

    Args:
        A: the operator.
        prior: the set S and its projector, `prior.project(w)`.
        images: x*, (batch, channels, height, width).
        y: what was measured of them, A x* + v.
        solution: what `recover(A, y, NPGD(prior))` returned; None runs it.
        effort: "quick" leaves out total variation, refinement and the designed A, and above 65,536
            pixels all but what was `tried`; "default" leaves out the last two above 4,096 pixels;
            "thorough" tries all.
        noise: standard deviation σ_v of the noise in y, for the solver that asks for it.
        more: an operator with more measurements than A.
        only: the names of the candidates to try; None tries all that the effort has.
        tried: solutions that are there already, by the candidate's name.
        seed: of every draw.
        progress: show progress bars.
        memory: most bytes, or "2 GB": fewer images pass through a `GenerativePrior` at a time, and
            an operator that does not fit is not tried.

    Raises:
        ValueError, TypeError: an argument does not fit, by name.
    """
    checks.choice(effort, "effort", "quick", "default", "thorough")
    x, y = fitting(A, prior, images, y)
    if more is not None and getattr(more, "image_shape", None) != tuple(A.image_shape):
        raise TypeError(
            f"more must be a LinearOperator on images of shape {tuple(A.image_shape)}, got"
            f" {checks.shown(more)}"
        )
    seed, progress = checks.seed(seed), checks.flag(progress, "progress")
    noise = checks.number(noise, "noise", zero=True)
    bound = memory_of(memory)
    prior = passing_within(prior, None if bound is None else bound / 2)
    solver = algorithm(prior)
    if solution is None:
        solution = recover(A, y, solver, progress=progress)
    elif not isinstance(solution, Solution) or solution.x.shape != x.shape:
        raise ValueError(
            f"solution must be of images of shape {tuple(x.shape)}, got"
            f" {checks.shown(getattr(solution, 'x', solution))}"
        )
    stopped = "max_iter reached" in solution.outcomes
    known = dict(tried or {})
    problem = _Problem(A, prior, x, y, noise, effort, seed, stopped, bound, frozenset(known))
    candidates = [*_solvers(problem), *_data(problem, more)]
    if only is not None:
        names = [change.name for change, *_ in candidates]
        only = checks.some(only, "only", *names)
        candidates = [each for each in candidates if each[0].name in only]
    base = per_pixel(solution.x, x)
    trials, without = [], dict[str, str]()
    for change, prepared in candidates:
        try:
            run = known.get(change.name)
            if run is None and problem.skips:
                without[change.name] = "left out at this size and effort"
                continue
            if run is None:
                run = recover(*prepared(), progress=progress)
        except Exception as failure:  # somebody else's prior or operator fails in its own way
            first = " ".join(str(failure).split()) or type(failure).__name__
            without[change.name] = f"failed: {checks.printable(first)[:80]}"
            continue
        error = per_pixel(run.x, x)
        if bool(error.isfinite().all()):
            trials.append(Trial(change, base, error, run.seconds, run.x))
        else:
            without[change.name] = "diverged"
    return Advice(base, tuple(trials), without, algorithm_name(problem.finishes))


@dataclass(frozen=True, eq=False)
class _Problem:
    A: LinearOperator
    prior: Any
    x: Images
    y: Measurements
    noise: float
    effort: str
    seed: int
    stopped: bool
    """Whether an image's run ended by its number of iterations."""
    memory: int | None
    """Bytes that a run may take."""
    tried: frozenset[str] = frozenset()
    """The candidates whose solutions are there already."""

    @cached_property
    def finishes(self) -> bool:
        """Whether NPGD(prior) ends on the latent unless told otherwise."""
        return finishes(self.prior)

    @property
    def plain(self) -> dict[str, str | None]:
        """The options of `npgd recover` without which it would not run as is tried here."""
        return {"--finish": "0"} if self.finishes else {}

    @property
    def skips(self) -> bool:
        """Whether no run is begun."""
        return self.effort == "quick" and self.A.n > LARGE

    @property
    def costly(self) -> bool:
        """Whether what takes long is tried."""
        return self.effort == "thorough" or (self.effort == "default" and self.A.n <= SMALL)


_Candidate = tuple[Change, Callable[[], tuple[LinearOperator, Measurements, Solver[Any]]]]
"""A change, and what makes A, y and the solver once it is tried."""


def _solvers(problem: _Problem) -> Iterator[_Candidate]:
    """Other solvers of the same data."""
    for change, solver in _methods(problem):
        yield change, partial(_on_the_same_data, problem, solver)


def _on_the_same_data(
    problem: _Problem, solver: Callable[[], Solver[Any]]
) -> tuple[LinearOperator, Measurements, Solver[Any]]:
    return problem.A, problem.y, solver()


def _methods(problem: _Problem) -> Iterator[tuple[Change, Callable[[], Solver[Any]]]]:
    prior: Any = problem.prior
    seed, sigma, encodes = problem.seed, problem.noise, sets.encodes(problem.prior)
    denoiser = fitting_name(checks.image_shape(problem.A.image_shape))
    if problem.stopped:
        most = LONGER * algorithm(prior).max_iter
        yield (
            Change(
                "more iterations",
                f"run on, for up to {most} iterations",
                f"npgd.NPGD(prior, max_iter={most}{', finish=0' * problem.finishes})",
                {"--max-iter": f"{most}", **problem.plain},
            ),
            lambda: algorithm(prior, max_iter=most),
        )
    if encodes:
        steps = f", max_iter={STEPS})"
        end = {"--max-iter": f"{STEPS}"}
        yield (
            Change(
                "finish",
                f"end with {FINISH} quasi-Newton steps on the latent",
                f"npgd.NPGD(prior, finish={FINISH}{steps}",
                {"--finish": f"{FINISH}", **end},
            ),
            lambda: NPGD(prior, finish=FINISH, max_iter=STEPS),
        )
        if problem.costly:
            yield (
                Change(
                    "refine",
                    f"end with {REFINE} Gauss–Newton steps on the latent",
                    f"npgd.NPGD(prior, refine={REFINE}{steps}",
                    {"--refine": f"{REFINE}", **end},
                ),
                lambda: NPGD(prior, refine=REFINE, max_iter=STEPS),
            )
    if type(problem.A) is Gaussian:
        yield (
            Change(
                "message passing",
                "correct for what a step brings with it (message passing)",
                "npgd.AMP(prior)",
                {"--method": "amp"},
            ),
            lambda: solver_of("amp", prior, seed, sigma),
        )
    named = "" if denoiser is None else f'npgd.load_denoiser("{denoiser}")'
    if encodes:
        given = f", denoiser={named}" if named else ""
        given += f", noise={sigma:g}" if sigma else ""
        yield (
            Change(
                "deviation",
                "recover an image near the range, not in it",
                f"npgd.Deviation(prior{given})",
                {"--method": "deviation"},
            ),
            lambda: solver_of("deviation", prior, seed, sigma),
        )
    baselines = {
        Method.TV: "npgd.TotalVariation()",
        Method.PNP_ADMM: f"npgd.PnPADMM({named or 'npgd.WaveletShrinkage()'})",
    }
    for method, python in baselines.items():
        name = BASELINES[method]
        if method is Method.TV and problem.effort == "quick" and name not in problem.tried:
            continue
        yield (
            Change(name, f"do without the prior, by {name}", python, {"--method": method.value}),
            partial(solver_of, method, prior, seed, sigma),
        )


def _data(problem: _Problem, more: LinearOperator | None) -> Iterator[_Candidate]:
    """Other measurements of the same images, recovered by NPGD(prior)."""
    A, prior, x = problem.A, problem.prior, problem.x

    def measured(
        operator: LinearOperator,
    ) -> tuple[LinearOperator, Measurements, Solver[Any]]:
        return operator, _measured(problem, operator), algorithm(problem.prior)

    if more is not None:
        words = f"measure with the operator given (m = {more.m})"
        yield Change("more", words, "more", data=True), lambda: measured(more)
    elif type(A) is Gaussian and 2 * A.m <= A.n:
        m, dtype = 2 * A.m, A.matrix.dtype
        yield _twice(A, problem), lambda: measured(_drawn(problem, m, dtype).to(x))
    elif type(A) is StructuredRandom and A.transform == "dct" and 2 * A.m <= A.n:
        larger = partial(
            StructuredRandom, A.image_shape, 2 * A.m, problem.seed, dtype=A.signs.dtype
        )
        yield _twice(A, problem), lambda: measured(larger().to(x))
    elif type(A) is Radon and A.angles == Radon(A.image_shape, len(A.angles)).angles:
        count = 2 * len(A.angles)
        finer_scan = Radon(A.image_shape, count, A.detectors)
        given = f", detectors={A.detectors}" * (A.detectors != Radon(A.image_shape).detectors)
        change = Change(
            "twice the angles",
            f"measure at twice the angles (m = {finer_scan.m})",
            f"npgd.Radon(prior.image_shape, angles={count}{given})",
            {"--angles": f"{count}", **problem.plain},
            data=True,
        )
        yield change, lambda: measured(finer_scan)
    elif type(A) is SuperResolution and A.factor % 2 == 0 and A.factor > 2:
        finer = SuperResolution(A.image_shape, A.factor // 2)
        change = Change(
            "half the factor",
            f"measure finer, by a factor of {finer.factor} (m = {finer.m})",
            f"npgd.SuperResolution(prior.image_shape, factor={finer.factor})",
            {"--factor": f"{finer.factor}", **problem.plain},
            data=True,
        )
        yield change, lambda: measured(finer)
    if type(A) is Gaussian and problem.costly and sets.samples(prior):
        file = "designed.safetensors"
        change = Change(
            "designed A",
            f"measure with an A designed for the prior, as many measurements (m = {A.m})",
            f"analysis.design_secant_pca(prior, m={A.m}, seed={problem.seed})",
            {"--operator": file, "--m": None, "--task": None, **problem.plain},
            before=f"npgd design --m {A.m} --seed {problem.seed} --output {file}",
            data=True,
        )
        rows = A.m
        yield (
            change,
            lambda: measured(
                design_secant_pca(prior, rows, seed=problem.seed, memory=problem.memory).to(x)
            ),
        )
    if problem.noise and bool((problem.y != A(x)).any()):
        halved = A(x) + (problem.y - A(x)) / 2
        change = Change(
            "half the noise",
            "halve the noise: average four measurements of each",
            "A(x) + v / 2",
            {"--noise": f"{problem.noise / 2:g}", **problem.plain},
            data=True,
        )
        yield change, lambda: (A, halved, algorithm(problem.prior))


def _twice(A: Gaussian | StructuredRandom, problem: _Problem) -> Change:
    """Twice the measurements, by a random A of the same kind."""
    m = 2 * A.m
    return Change(
        "twice the measurements",
        f"take twice the measurements (m = {m})",
        f"npgd.{type(A).__name__}(prior.image_shape, m={m}, seed={problem.seed})",
        {"--m": f"{m}", **problem.plain},
        data=True,
    )


def _drawn(problem: _Problem, m: int, dtype: torch.dtype) -> Gaussian:
    """A Gaussian A; MemoryError where its matrix does not fit."""
    A, size = problem.A, m * problem.A.n * dtype.itemsize
    if problem.memory is not None and size > problem.memory:
        raise MemoryError(f"its matrix takes {gigabytes(size)}, memory is {problem.memory:,} bytes")
    return Gaussian(A.image_shape, m, seed=problem.seed, dtype=dtype)


def _measured(problem: _Problem, operator: LinearOperator) -> Measurements:
    """Measurements with as much noise, in relation to what is measured, as y has."""
    A, x = problem.A, problem.x
    y: Measurements = operator(x)
    noise = norm(problem.y - A(x))
    if not bool((noise > 0).any()):
        return y
    generator = checks.seeded(problem.seed)
    drawn = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y)
    scale = noise / norm(A(x)) * norm(y) / norm(drawn)
    noisy: Measurements = y + drawn * scale.nan_to_num(nan=0.0)[:, None]
    return noisy
