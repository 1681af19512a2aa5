"""Local rates: how fast an iteration ends, from the derivative at the point where it rests.

An iteration z ↦ T(z) that comes to rest at z̄, T differentiable there, ends at the linear rate
ρ(DT(z̄)), the spectral radius, if that is below 1 (Ostrowski 1966; Ortega, Rheinboldt 1970,
10.1.3): ‖z_n − z̄‖^(1/n) → ρ from almost every near start. A complex leading eigenvalue
ρ exp(±iφ) makes the error swing with a period of 2π/φ, a negative one with a period of 2. If the
spectral radius is above 1, z̄ repels and no run rests there. No constant of the whole set enters,
and no κ < 2.

*Exact projection* (`local_rate`). S smooth at G(z̄), J the Jacobian of G, w̄ = x̄ − η Aᵀ(A x̄ − y).
NPGD with the nearest point of S rests where Jᵀ Aᵀ(A x̄ − y) = 0, and there

    DT = (JᵀJ + η H)⁻¹ (JᵀJ − η JᵀAᵀA J),    H = ∇²_z ⟨Aᵀ(A x̄ − y), G(z)⟩.

On the tangent space that is (I − S_ν)⁻¹ Π (I − η AᵀA) Π, S_ν the shape operator of S in the normal
direction ν = w̄ − x̄. Without noise and with x* in S, ν = 0: with the generalised eigenvalues λ of
(JᵀAᵀA J, JᵀJ) the rate is max |1 − ηλ|, below 1 for every η < 2/λ_max where A maps no tangent to 0,
and least, (κ_T − 1)/(κ_T + 1), at η = 2/(λ_min + λ_max), κ_T = λ_max/λ_min (compare Vu, Raich,
IEEE Trans. Signal Process. 69, 2021).

*The projector that is there* (`fixed_point`). T(z) = G†(G(z) − η Aᵀ(A G(z) − y)) on latents: k
directional derivatives give DT. *Any map* (`fixed_point_of`), in any number of dimensions: beyond
`DENSE` the leading eigenvalue comes from Arnoldi's iteration on products with DT.

What is computed is in float64, but for maps of your own, which keep the precision of their point.
"""

from __future__ import annotations

from analysis.local.exact import LocalRate, local_rate
from analysis.local.rest import FixedPoint, fixed_point, fixed_point_of
from analysis.local.run import RunRate, run_rate

__all__ = [
    "FixedPoint",
    "LocalRate",
    "RunRate",
    "fixed_point",
    "fixed_point_of",
    "local_rate",
    "run_rate",
]
