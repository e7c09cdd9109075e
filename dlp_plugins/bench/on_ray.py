"""A suite on a Ray cluster: its workers divide the runs by claims, Ray starts them again.

Each worker does what `dlp bench` does on the same folder. Ray chooses where they run and starts a
lost one again; by the claims (`claims.py`) no run is done twice.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlp_plugins.bench.runner import Listener, Result, TrialDone, run_suite
from dlp_plugins.bench.suite import Suite
from dlp_plugins.component import install_command
from dlp_plugins.errors import MissingDependency, UsageError
from dlp_plugins.registry import load_plugin_file
from dlp_plugins.training import events
from dlp_plugins.training.folder import RunFolder

LOOK_SECONDS = 1.0  # between two looks at what the workers have finished


def run_suite_on_ray(
    suite: Suite,
    folder: Path,
    *,
    address: str | None = None,
    device: str = "auto",
    plugins: Sequence[str | Path] = (),
    listeners: Sequence[Listener] = (),
) -> list[Result]:
    """As `run_suite`, by a worker per GPU of the cluster, or per core where there is none.

    Args:
        address: of the cluster, whose machines share the folder; by default this machine alone.

    Raises:
        MissingDependency: Ray is not installed. UsageError: no such cluster, or it does not start.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingDependency(f"--ray needs the package ray: {install_command('ray')}") from error
    folder, tell = folder.resolve(), events.Listeners(listeners)
    paths = [str(Path(plugin).resolve()) for plugin in plugins]
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # a node that is slow to start raises Exception itself
        where = "Ray does not start" if address is None else f"--ray-address {address}"
        raise UsageError(f"{where}: {error}") from error
    try:
        has = ray.cluster_resources()
        on_gpu = device != "cpu" and has.get("GPU", 0) >= 1
        count = min(len(suite.trials), int(has["GPU" if on_gpu else "CPU"]))
        worker = ray.remote(num_cpus=1, num_gpus=int(on_gpu), max_retries=-1)(_work)
        tasks = [worker.remote(suite, folder, device, paths) for _ in range(max(1, count))]
        told: set[int] = set()
        left = tasks
        while left:
            _, left = ray.wait(left, num_returns=len(left), timeout=LOOK_SECONDS)
            _tell_what_is_done(suite, folder, told, tell)
        return ray.get(tasks[0])
    finally:
        ray.shutdown()


def _work(suite: Suite, folder: Path, device: str, plugins: Sequence[str]) -> list[Result]:
    for plugin in plugins:
        load_plugin_file(Path(plugin))
    return run_suite(suite, folder, device=device, plugins=plugins)


def _tell_what_is_done(suite: Suite, folder: Path, told: set[int], tell: Any) -> None:
    for number, trial in enumerate(suite.trials):
        run = RunFolder(folder / trial.folder)
        if number not in told and run.summary.is_file():
            told.add(number)
            tell(TrialDone(number, Result(trial, run.read_summary())))
