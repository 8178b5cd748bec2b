"""Processes on this machine, each with its own threads and its own models.

One process a core with one thread each is faster than one process with many threads for models of this size, and
a model that crashes takes one worker along, not the run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for_sentinel

from tokbench.jobs import Job, Outcome, died, run_job

__all__ = ["LocalEngine", "default_workers"]

log = logging.getLogger("tokbench.engine")

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def default_workers(device: str) -> int:
    """Cores that this process may use; one worker on a GPU, whose memory they would share."""
    return 1 if device != "cpu" else len(os.sched_getaffinity(0))


class LocalEngine:
    """A pool of processes.

    Args:
        workers: number of processes; 1 runs in this process.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Run every job; see `Engine.run`."""
        if self.workers <= 1 or len(jobs) <= 1:
            for job in jobs:
                yield run_job(job)
            return
        queue = deque(jobs)
        with _one_thread_each():
            while queue:
                in_flight = yield from _drain(queue, min(self.workers, len(queue)))
                for job in in_flight:
                    log.warning("a worker died while %s was in work; it is tried again on its own", job.name)
                    yield _alone(job)


def _drain(queue: deque[Job], workers: int) -> Generator[Outcome, None, list[Job]]:
    """Run the queue until it is empty or a worker dies; returns the jobs that were in work at that moment."""
    pool = _pool(workers)
    futures: dict[Future[Outcome], Job] = {}
    broken: list[Job] = []
    try:
        while (queue and not broken) or futures:
            # No more jobs at a time than workers: a crash then puts only those in doubt.
            while queue and len(futures) < workers and not broken:
                job = queue.popleft()
                try:
                    futures[pool.submit(run_job, job)] = job
                except BrokenProcessPool:
                    broken.append(job)
            done, _ = wait(futures, return_when=FIRST_COMPLETED)
            for future in done:
                job = futures.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    broken.append(job)
    finally:
        pool.shutdown(wait=not broken, cancel_futures=True)
    return broken


def _alone(job: Job) -> Outcome:
    pool = _pool(1)
    try:
        return pool.submit(run_job, job).result()
    except BrokenProcessPool:
        return died(job)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_follow_parent)


def _follow_parent() -> None:
    """End this worker when the parent is gone, even if it was killed."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait_for_sentinel([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Children inherit one thread for every numeric library, unless the user said otherwise."""
    missing = [name for name in _THREADS if name not in os.environ]
    os.environ |= dict.fromkeys(missing, "1")
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)
