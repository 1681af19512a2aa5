"""Work is done in order, and the same by every executor, that of a Dask cluster among them."""

from analysis import testing
from analysis.rec.secants import all_pairs
from analysis.rec.tangents import tangents
from analysis.tasks import draw_latents
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
