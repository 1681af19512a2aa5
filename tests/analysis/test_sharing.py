"""Modules and large arrays go to each process once, and what comes back is the same."""

import pickle
import warnings
from collections import OrderedDict
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import analysis
from analysis import sharing, testing
from analysis.projection import sample_families
from analysis.tasks import in_order
from npgd.operators import Gaussian


class Elsewhere(Executor):
    """Runs each task in the next of some processes: all that they share is what is pickled."""

    def __init__(self, monkeypatch, processes):
        self._stores = [OrderedDict() for _ in range(processes)]
        self._patch, self.sent, self.turns, self.cached = monkeypatch, [], 0, True

    def submit(self, run, /, *args):
        data = pickle.dumps((run, args))
        self.sent.append(len(data))
        process, self.turns = self.turns % len(self._stores), self.turns + 1
        future = Future()
        with self._patch.context() as there:
            there.setattr(sharing, "_STORE", self._stores[process])
            there.setattr(sharing, "_here", lambda: ("elsewhere", process))
            run, args = pickle.loads(data)
            future.set_result(run(*args))
        return future


def layer():
    return nn.Linear(1000, 300)


LAYER = 4 * 1000 * 300


def _of_both(module, array, i):
    return module.weight[i % 300, 0].item() + float(array[i]) + i


@pytest.mark.parametrize("processes", [1, 3])
def test_each_process_is_sent_a_module_and_an_array_once(monkeypatch, processes):
    module, array = layer(), np.arange(2.0**18)
    work = [(module, array, i) for i in range(40)]
    pool = Elsewhere(monkeypatch, processes)
    assert in_order(_of_both, work, 40, "work", executor=pool) == [_of_both(*args) for args in work]
    whole = [size for size in pool.sent if size > LAYER]
    # Each process once, or as often as tasks were under way when it said that it had none.
    assert len(whole) <= 1 + (sharing.SMALLEST if processes > 1 else 0)
    assert len(pool.sent) == 40 + len(whole) - 1
    assert min(pool.sent) < 1000


def _first_weight(module):
    return module.weight[0, 0].item()


def test_a_module_is_sent_again_once_it_has_changed(monkeypatch):
    module, pool = layer(), Elsewhere(monkeypatch, 1)

    def work():
        return in_order(_first_weight, [(module,)] * 3, 3, "work", executor=pool)

    before = work()
    sent = sum(size > LAYER for size in pool.sent)
    assert work() == before and sum(size > LAYER for size in pool.sent) == sent == 1
    with torch.no_grad():
        module.weight[0, 0] = 7.0
    assert work() == [7.0] * 3 and sum(size > LAYER for size in pool.sent) == 2


def test_a_process_keeps_no_more_than_its_share_and_asks_for_the_rest(monkeypatch):
    monkeypatch.setattr(sharing, "KEPT", LAYER)
    first, second = layer(), layer()
    work = [(first,), (second,)] * 4
    pool = Elsewhere(monkeypatch, 1)
    found = in_order(_first_weight, work, 8, "work", executor=pool)
    assert found == [_first_weight(*args) for args in work]


def test_threads_are_given_the_module_itself():
    module = layer()
    with ThreadPoolExecutor(2) as pool:
        (found,) = in_order(id, [(module,)], 1, "work", executor=pool)
    assert found == id(module)


def test_delta_is_the_same_by_an_executor(monkeypatch):
    S = testing.random_prior((1, 8, 8), 3, seed=0)
    families, known = sample_families(S, 5, sigmas=(0.5,))
    settings = {"known": known, "starts": 400, "steps": 3}  # two images in a task
    alone = analysis.projection_error(S, families, **settings)
    pool = Elsewhere(monkeypatch, 2)
    spread = analysis.projection_error(S, families, executor=pool, **settings)
    assert len(pool.sent) >= 6
    for name, family in alone.families.items():
        assert torch.equal(family.nearest, spread.families[name].nearest)
        assert torch.equal(family.achieved, spread.families[name].achieved)


def test_dask_is_sent_no_large_graph():
    from dask.distributed import Client

    module, array = nn.Linear(2000, 1500), np.zeros(2**21)
    work = [(module, array, i) for i in range(12)]
    with Client(processes=False, threads_per_worker=2, dashboard_address=None) as client:
        pool = client.get_executor()
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*large graph.*")
            found = in_order(_of_both, work, 12, "work", executor=pool)
            assert found == [_of_both(*args) for args in work]
            before = len(sharing._modules_of(client))
            in_order(_first_weight, [(module,)] * 2, 2, "work", executor=pool)
            assert len(sharing._modules_of(client)) == before == 1


@pytest.mark.slow
def test_what_a_lost_worker_alone_held_is_sent_again(tmp_path):
    from dask.distributed import Client, LocalCluster

    module, array = layer(), np.arange(2.0**18)
    cluster = LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, Client(cluster) as client:
        work = [(tmp_path / "ended", module, array, i) for i in range(12)]
        pool = client.get_executor()
        found = in_order(_ends_its_worker_once, work, 12, "work", executor=pool)
    assert found == [_of_both(module, array, i) for i in range(12)]


def _ends_its_worker_once(flag, module, array, i):
    import os

    if i == 5 and not flag.exists():
        flag.touch()
        os._exit(1)
    return _of_both(module, array, i)


@pytest.mark.slow
def test_mpi_ranks_find_the_same_constants(tmp_path):
    """Needs an MPI: `pip install mpi4py mpich`."""
    import shutil
    import subprocess
    import sys

    pytest.importorskip("mpi4py")
    if shutil.which("mpiexec") is None:
        pytest.skip("no mpiexec")
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    command = ["mpiexec", "-n", "3", sys.executable, "-m", "mpi4py.futures", str(script)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert told.returncode == 0, told.stderr
    S, A = testing.random_prior((1, 8, 8), 3, seed=0), Gaussian((1, 8, 8), m=10)
    alone = analysis.estimate_rec(A, S, points=60, tangent_points=4, looks=("secants", "tangents"))
    assert told.stdout.split() == [repr(alone.alpha), repr(alone.beta)]


RANKS = """
from mpi4py.futures import MPIPoolExecutor

import analysis
from analysis import testing
from npgd.operators import Gaussian

if __name__ == "__main__":
    S, A = testing.random_prior((1, 8, 8), 3, seed=0), Gaussian((1, 8, 8), m=10)
    with MPIPoolExecutor() as pool:
        found = analysis.estimate_rec(
            A, S, points=60, tangent_points=4, looks=("secants", "tangents"), executor=pool
        )
    print(repr(found.alpha), repr(found.beta))
"""
