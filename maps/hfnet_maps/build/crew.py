"""Who computes the tasks of a build: this process, processes of this machine, or the workers of a Dask cluster.

Tasks are small, and name their data by file; what they compute goes into files. So it does not matter who computes
what, nor how often: a task that was lost with its worker is done again by another.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from hfnet_edge.errors import BackendError, HFNetEdgeError, InputError
from hfnet_edge.shell.console import Report, silent

LOCAL = "local:"  # before a number of workers: a cluster of this machine
WAITING = 4  # tasks a worker that are handed out: more would only fill the scheduler
ATTEMPTS = 3  # of a task whose worker is lost
CONNECT = 10  # seconds to find a cluster

Task = TypeVar("Task")


@dataclass(frozen=True)
class Crew:
    """Who computes tasks.

    Attributes:
        executor: None is this process.
        workers: that compute at once.
        where: for people.
    """

    executor: Executor | None = None
    workers: int = 1
    where: str = "this process"

    def run(
        self,
        function: Callable[[Task], Any],
        tasks: Iterable[Task],
        report: Report = silent,
        what: str = "",
        done: int = 0,
        total: int = 0,
        size: Callable[[Task], int] = lambda task: 1,
    ) -> Iterator[tuple[Task, Any]]:
        """Each task with what the function makes of it, in any order.

        Args:
            function: of a module, where others than this process compute.
            what, done, total, size: of the progress: what was done before, will have been, and what a task adds.

        Raises:
            BackendError: the workers are gone. What else the function raises.
        """
        report(what, done, total)
        for task, made in self._in_turn(function, tasks) if self.executor is None else self._at_once(function, tasks):
            yield task, made
            done += size(task)
            report(what, done, total)

    @staticmethod
    def _in_turn(function: Callable[[Task], Any], tasks: Iterable[Task]) -> Iterator[tuple[Task, Any]]:
        for task in tasks:
            yield task, function(task)

    def _at_once(self, function: Callable[[Task], Any], tasks: Iterable[Task]) -> Iterator[tuple[Task, Any]]:
        assert self.executor is not None
        running: dict[Future, Task] = {}
        left = iter(tasks)
        try:
            while True:
                while len(running) < WAITING * self.workers and (task := next(left, None)) is not None:
                    running[self.executor.submit(function, task)] = task
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except HFNetEdgeError:
            raise
        except (CancelledError, BrokenProcessPool, OSError, ImportError) as e:
            raise self._gone(e) from e
        except Exception as e:
            if type(e).__module__.split(".")[0] in ("distributed", "dask"):
                raise self._gone(e) from e
            raise
        finally:
            for future in running:
                future.cancel()

    def _gone(self, why: BaseException) -> BackendError:
        return BackendError(
            f"{self.where} went away, or cannot compute: {type(why).__name__} {why}".strip(),
            "what was done is kept: run the same command again; workers need hfnet-edge and the folders of this build",
        )


ALONE = Crew()


@contextmanager
def crew(jobs: int = 1, dask: str | None = None) -> Iterator[Crew]:
    """Those who compute while the context lasts.

    Args:
        jobs: processes of this machine.
        dask: in their place the address of a Dask scheduler, or `local:4` for four workers of this machine.

    Raises:
        InputError: there is no such cluster, or `local:` has no number.
    """
    if dask is not None:
        with _dask(dask) as found:
            yield found
    elif jobs > 1:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, spawn, initializer=_end_with_parent, initargs=(os.getpid(),)) as pool:
            try:
                yield Crew(pool, jobs, f"one of {jobs} processes")
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    else:
        yield ALONE


@contextmanager
def _dask(address: str) -> Iterator[Crew]:
    import dask
    from distributed import Client, LocalCluster

    dask.config.set({"distributed.comm.timeouts.connect": f"{CONNECT}s", "distributed.logging.distributed": "critical"})
    if address.startswith(LOCAL):
        count = address.removeprefix(LOCAL)
        if not count.isdigit() or not 1 <= int(count) <= 1024:
            raise InputError(f"{address} says no number of workers", "write --dask local:4")
        with (
            LocalCluster(
                n_workers=int(count), threads_per_worker=1, dashboard_address=None, silence_logs=50
            ) as cluster,
            Client(cluster) as client,
        ):
            yield Crew(
                client.get_executor(pure=True, retries=ATTEMPTS), int(count), f"the {count} workers of {address}"
            )
        return
    try:
        client = Client(address, timeout=CONNECT)
    except (OSError, ValueError, TypeError) as e:
        raise InputError(f"there is no Dask cluster at {address}: {e}", "check --dask, say tcp://host:8786") from e
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise InputError(f"the Dask cluster at {address} has no workers", "start some with `dask worker`")
        yield Crew(client.get_executor(pure=True, retries=ATTEMPTS), threads, f"the Dask cluster at {address}")


def _end_with_parent(parent: int) -> None:
    """Ends this process soon after its parent was killed, which would leave it waiting for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
