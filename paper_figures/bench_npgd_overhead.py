"""What the solver loop adds to the work it is made of.

Times `recover` with NPGD against its bare ingredients, done as often on tensors of the same
shapes: per iteration one encoder pass, one generator pass, one product with A and one with Aᵀ,
without the checks, histories, stopping rule, or even the gradient step. The two take turns, so
that whatever else the machine does falls on both; the figure is the ratio of the least of each,
since load can only add.

    python paper_figures/bench_npgd_overhead.py
"""

import argparse
import json
import time
from collections.abc import Callable

import torch

import npgd
from npgd.networks import DCGANGenerator, Encoder

SHAPE = (1, 28, 28)
LIMIT = 1.10


def operators() -> dict[str, npgd.LinearOperator]:
    return {
        "Gaussian, m = 100": npgd.Gaussian(SHAPE, 100, seed=0),
        "inpainting, hole 8": npgd.Inpainting(SHAPE, hole=8),
        "super-resolution ×2": npgd.SuperResolution(SHAPE, factor=2),
    }


def ingredients(
    A: npgd.LinearOperator, y: torch.Tensor, prior: npgd.GenerativePrior, iterations: int
) -> Callable[[], None]:
    """The network passes and products of `iterations` iterations, on the networks directly."""
    w, z = A.adjoint(y), torch.zeros(len(y), prior.latent_dim)
    if isinstance(A, npgd.MatrixOperator):
        matrix, flat = A.matrix, w.flatten(1)

        def forward() -> None:
            flat @ matrix.T

        def adjoint() -> None:
            y @ matrix
    else:

        def forward() -> None:
            A(w)

        def adjoint() -> None:
            A.adjoint(y)

    @torch.no_grad()
    def run() -> None:
        adjoint()
        forward()
        for _ in range(iterations):
            adjoint()
            prior.encoder(w)
            prior.generator(z)
            forward()

    return run


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--width", type=int, default=32, help="of both networks")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--quick", action="store_true", help="tiny, and no verdict")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if options.quick:
        options.batch, options.iterations, options.rounds, options.width = 4, 3, 1, 8
    if options.threads:
        torch.set_num_threads(options.threads)

    torch.manual_seed(0)
    prior = npgd.GenerativePrior(
        DCGANGenerator(20, options.width), Encoder(20, options.width), 20, SHAPE
    ).requires_grad_(False)
    x = prior.sample(options.batch, seed=1)
    results = {}
    for name, A in operators().items():
        y = A(x)
        solver = npgd.NPGD(prior, max_iter=options.iterations, tol=0.0, patience=None)
        bare = ingredients(A, y, prior, options.iterations)

        def solve(
            A: npgd.LinearOperator = A, y: torch.Tensor = y, solver: npgd.NPGD = solver
        ) -> None:
            solution = npgd.recover(A, y, solver)
            # A loop that stops early would be compared with more work than it did.
            assert solution.n_iter == options.iterations, solution.status

        solve()
        bare()
        pairs = [(seconds(solve), seconds(bare)) for _ in range(options.rounds)]
        loop, parts = (min(times) for times in zip(*pairs, strict=True))
        results[name] = {"recover_s": loop, "ingredients_s": parts, "ratio": loop / parts}
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        print(f"batch {options.batch}, {options.iterations} iterations, width {options.width},")
        print(f"{torch.get_num_threads()} threads; least of {options.rounds} turns\n")
        print(f"{'':22}{'recover':>12}{'ingredients':>14}{'ratio':>8}")
        for name, row in results.items():
            loop, parts = 1e3 * row["recover_s"], 1e3 * row["ingredients_s"]
            print(f"{name:22}{loop:>9.1f} ms{parts:>11.1f} ms{row['ratio']:>8.3f}")
    worst = max(row["ratio"] for row in results.values())
    if worst > LIMIT and not options.quick:
        raise SystemExit(f"the loop costs {worst:.3f} times its ingredients, above {LIMIT}")


if __name__ == "__main__":
    main()
