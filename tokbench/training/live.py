"""Curves in MLflow while a training runs: sent from a thread, dropped where the server is slow, never fatal."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping

from tokbench.training.loop import Log, Point

__all__ = ["live_curves"]

log = logging.getLogger("tokbench.tracking")

_KEPT = 1000  # points that wait; more are dropped

Open = Callable[[str], Callable[[int, int, Mapping[str, float]], None]]
"""Label -> what sends (step, time in ms, values), and closes the run when the values are empty."""


def live_curves(open_run: Open) -> Callable[[str], Log]:
    """Label of a training -> where its points go.

    Args:
        open_run: opens a run of the tracking server; called, as what it returns, from the thread alone.
    """

    def begin(label: str) -> Log:
        points: queue.Queue[tuple[int, int, dict[str, float]]] = queue.Queue(_KEPT)
        threading.Thread(target=_send, args=(open_run, label, points), daemon=True).start()

        def tell(point: Point) -> None:
            values = {**point.values, "tokens_per_second": point.tokens_per_second}
            try:
                points.put_nowait((point.step, int(time.time() * 1000), values))
                if point.step >= point.steps:
                    points.put_nowait((point.step, int(time.time() * 1000), {}))
            except queue.Full:
                log.debug("a point of %s was dropped", label)

        return tell

    return begin


def _send(open_run: Open, label: str, points: queue.Queue[tuple[int, int, dict[str, float]]]) -> None:
    try:
        send = open_run(label)
        while True:
            step, now, values = points.get()
            send(step, now, values)
            if not values:
                return
    # MLflow raises its own, requests', SQLAlchemy's and the operating system's errors; none may cost a training.
    except Exception as error:  # noqa: BLE001
        log.warning("the curves of %s are not followed in MLflow (%s)", label, " ".join(str(error).split())[:200])
