"""Who computes tasks: what a crew returns, workers that are lost, and clusters that are none."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hfnet_edge.errors import BackendError, ImageError, InputError
from hfnet_maps.build import crew as module
from hfnet_maps.build.crew import ALONE, WAITING, Crew, crew


def squared(number: int) -> int:
    return number**2


def dies_at_first(marker: str) -> str:
    """Ends its process, the first time."""
    path = Path(marker)
    if path.name == "7" and not path.exists():
        path.touch()
        time.sleep(0.2)
        os._exit(1)
    return path.name


def always_dies(_: int) -> None:
    os._exit(1)


def fails(number: int) -> None:
    raise ImageError(f"image {number} is torn", "take another")


@pytest.mark.parametrize("who", [{}, pytest.param({"jobs": 2}, marks=pytest.mark.slow)])
def test_each_task_comes_with_its_result_and_progress_is_told(who):
    told = []
    with crew(**who) as workers:
        made = dict(workers.run(squared, range(20), lambda *step: told.append(step), "square", 5, 25))
    assert made == {n: n * n for n in range(20)}
    assert told == [("square", done, 25) for done in range(5, 26)]


def test_tasks_are_made_when_somebody_can_take_them():
    from concurrent.futures import ThreadPoolExecutor

    made = []
    with ThreadPoolExecutor(1) as pool:
        running = Crew(pool, 1, "a thread").run(squared, (made.append(n) or n for n in range(100)))
        next(running)
        assert len(made) <= WAITING + 1
        running.close()


@pytest.mark.slow
def test_errors_of_tasks_are_errors_here_and_dead_workers_are_said():
    with pytest.raises(ImageError, match="is torn"), crew(jobs=2) as workers:
        list(workers.run(fails, range(3)))
    with pytest.raises(BackendError, match="went away") as error, crew(jobs=2) as workers:
        list(workers.run(always_dies, range(3)))
    assert "run the same command again" in error.value.remedy


@pytest.mark.slow
def test_a_lost_worker_costs_its_tasks_and_no_more(tmp_path):
    with crew(dask="local:2") as workers:
        made = dict(workers.run(dies_at_first, [str(tmp_path / str(n)) for n in range(20)]))
    assert sorted(made.values(), key=int) == [str(n) for n in range(20)] and (tmp_path / "7").exists()


@pytest.mark.slow
def test_a_task_that_kills_every_worker_is_given_up():
    with pytest.raises(BackendError, match="local:2 went away"), crew(dask="local:2") as workers:
        list(workers.run(always_dies, range(1)))


def test_what_is_no_cluster_is_said(monkeypatch):
    monkeypatch.setattr(module, "CONNECT", 1)
    for address in ("tcp://127.0.0.1:1", "no address", "local:", "local:0", "local:-1"):
        with pytest.raises(InputError), crew(dask=address):
            raise AssertionError("there is one")
    with crew(jobs=1) as alone:
        assert alone is ALONE
