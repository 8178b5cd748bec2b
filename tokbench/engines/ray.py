"""A Ray cluster: many machines, one store on a file system that all of them see."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from tokbench.errors import MissingBackend
from tokbench.jobs import Job, Outcome, died, run_job

__all__ = ["RayEngine"]

log = logging.getLogger("tokbench.engine")


class RayEngine:
    """Jobs as Ray tasks.

    Uses the cluster that `RAY_ADDRESS` names, or starts one on this machine. Workers are reused, so that models stay
    loaded from shard to shard, as on one machine.

    Args:
        workers: jobs in flight; the cluster's cores (or GPUs) by default.
        gpus: whether each job takes one GPU.

    Raises:
        MissingBackend: Ray is not installed.
    """

    def __init__(self, workers: int | None, *, gpus: bool) -> None:
        try:
            import ray as package
        except ModuleNotFoundError:
            raise MissingBackend("ray", extra="ray", needed_by="--engine ray") from None
        ray: Any = package
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False, num_cpus=None, configure_logging=False)
        self._ray = ray
        resources = {"num_gpus": 1} if gpus else {"num_cpus": 1}
        available = ray.cluster_resources().get("GPU" if gpus else "CPU", 1)
        self.workers = workers or max(1, int(available))
        # One more attempt after a worker's death, as the local engine does.
        self._task: Any = ray.remote(max_retries=1, **resources)(run_job)

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Run every job; see `Engine.run`."""
        waiting = list(reversed(jobs))
        flying: dict[Any, Job] = {}
        while waiting or flying:
            while waiting and len(flying) < self.workers:
                job = waiting.pop()
                flying[self._task.remote(job)] = job
            done, _ = self._ray.wait(list(flying), num_returns=1)
            for reference in done:
                job = flying.pop(reference)
                try:
                    yield self._ray.get(reference)
                except self._ray.exceptions.RayError as error:
                    log.warning("%s was lost: %s", job.name, str(error).splitlines()[0])
                    yield died(job)
