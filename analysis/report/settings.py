"""How `verify` runs NPGD, and how far it looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from analysis.projection import ProjectionSettings
from analysis.rec.settings import RecSettings
from npgd import checks
from npgd.operators import LinearOperator


@dataclass(frozen=True)
class RunSettings:
    """The run of NPGD that the bound is held against."""

    step_size: float | str = "1/beta"
    """η of the gradient step. A positive number; "1/beta", the theorem's 1/β with the β of S: exact
    on affine and finite sets, elsewhere the largest found, so that η may be too long; or "auto",
    the empirical choice of `npgd.choose_step_size`."""
    n_iter: int = 30
    """Iterations, at least 2."""
    noise: float = 0.0
    """Standard deviation of the Gaussian noise added to every measurement."""
    start: str = "adjoint"
    """x_0: "adjoint" is Aᵀy, so that every statement begins at x_1; "range" is P(Aᵀy), in S."""
    count: int = 12
    """Samples of S to recover, where no images are given."""

    def __post_init__(self) -> None:
        checks.settle(
            self,
            step_size=checks.number_or(self.step_size, "step_size", "1/beta", "auto"),
            n_iter=checks.integer(self.n_iter, "n_iter", minimum=2),
            noise=checks.number(self.noise, "noise", zero=True),
            start=checks.choice(self.start, "start", "adjoint", "range"),
            count=checks.integer(self.count, "count"),
        )

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> RunSettings:
        """From fields by name; TypeError names those that are none."""
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in given if name not in known]:
            raise TypeError(
                f"run must be given by {', '.join(known)}, got {', '.join(unknown)}; how far to "
                "look is said by effort, rec and projection"
            )
        return cls(**given)


def rec_settings(effort: str, entries: int = 1) -> RecSettings:
    """Settings of `estimate_rec` for an effort of `verify`; ValueError for another.

    As `RecSettings.of`; by default fewer points and searches, since α(x*) of every image is
    searched for besides.
    """
    found = RecSettings.of(effort, entries)
    if effort == "default":
        return replace(found, points=3000, search_starts=16, search_steps=80)
    return found


def recorded(rec: RecSettings, projection: ProjectionSettings) -> dict[str, Any]:
    """How far was looked for α, β and δ."""
    found = asdict(rec) | {"looks": list(rec.looks)}
    return found | {f"projection_{name}": value for name, value in asdict(projection).items()}


def described(operator: LinearOperator) -> dict[str, Any]:
    """What A is; its precision where that is not float64, whatever it is given."""
    fixed = operator.fixed_precision
    return {
        "kind": operator.title,
        "m": operator.m,
        "n": operator.n,
        "norm": operator.norm(),
        "row_orthonormal": operator.row_orthonormal,
        **({"precision": "float32"} if str(fixed) == "torch.float32" else {}),
    }
