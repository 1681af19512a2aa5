"""Work is done in order, and the same by every executor, that of a Dask cluster among them."""

import os

import pytest

import analysis
from analysis import testing
from analysis.rec.secants import all_pairs
from analysis.rec.tangents import tangents
from analysis.tasks import draw_latents, in_order
from npgd.operators import Gaussian


def test_a_dask_cluster_agrees_to_the_last_bit():
    from dask.distributed import Client

    S, A = testing.random_prior((1, 8, 8), 3, seed=0), Gaussian((1, 8, 8), m=10)
    z = draw_latents(3, 40)
    points = S.generate(z.double()).detach()

    def outcome(executor):
        scan = all_pairs(A.double(), points, executor=executor)
        scanned = tangents(A.double(), S, z[:4].double(), executor=executor)
        return scan.lowest, scan.highest, scanned.low.tolist(), scanned.high.tolist()

    alone = outcome(None)
    with Client(processes=False, threads_per_worker=2, dashboard_address=None) as client:
        assert outcome(client.get_executor()) == alone


def _ends_its_worker_once(flag, value):
    """Ends the process that runs it, unless the file `flag` says that one has ended already."""
    if not flag.exists():
        flag.touch()
        os._exit(1)
    return 2 * value


@pytest.mark.slow
def test_a_dask_cluster_of_two_processes_agrees_and_outlives_a_worker(tmp_path):
    from dask.distributed import Client, LocalCluster

    S, A = testing.random_prior((1, 8, 8), 3, seed=0), Gaussian((1, 8, 8), m=10)
    settings = {"points": 60, "tangent_points": 4, "looks": ("secants", "tangents")}
    alone = analysis.estimate_rec(A, S, **settings)
    cluster = LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, Client(cluster) as client:
        pool = client.get_executor()
        spread = analysis.estimate_rec(A, S, executor=pool, **settings)
        assert (spread.alpha, spread.beta) == (alone.alpha, alone.beta)
        work = [(tmp_path / "ended", i) for i in range(6)]
        outcome = in_order(_ends_its_worker_once, work, len(work), "work", executor=pool)
        assert outcome == [2 * i for i in range(6)]
        again = analysis.estimate_rec(A, S, executor=pool, **settings)
        assert (again.alpha, again.beta) == (alone.alpha, alone.beta)
