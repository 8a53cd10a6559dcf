"""The connection to a Ray cluster, on this machine or on many, and the check that its machines can do the work.

Ray is imported only here, and only when a batch asks for it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from realfill.errors import ClusterError, MissingDependencyError, warn
from realfill.jobs.sharing import SharedFolder

_CONNECT_S = 5.0
_CHECK_S = 120.0  # for all machines to start a process and to look at the folder
_STORE_BYTES = 100_000_000  # Ray's object store; results are lines of text


@dataclass(frozen=True, slots=True, kw_only=True)
class RayCluster:
    """Where Ray runs a batch, and what each task gets.

    Attributes:
        address: ``local`` starts Ray on this machine for this batch; ``auto`` joins the cluster of this machine;
            ``HOST:PORT`` joins a cluster from one of its machines, and ``ray://HOST:PORT`` from elsewhere.
        num_cpus: processors for each task, and its number of threads unless ``OMP_NUM_THREADS`` is set. Legal: above 0.
        num_gpus: GPUs for each task: a whole number, or a share such as 0.5. ``None``: 1 if the cluster has GPUs.
        retries: how often an item is tried again if its worker dies. Legal: from 0.
    """

    address: str = "local"
    num_cpus: float = 1.0
    num_gpus: float | None = None
    retries: int = 2

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: a value is not legal.
        """
        if not (self.address in {"local", "auto"} or _host_and_port(self.address)):
            raise ValueError(
                f"the address of the Ray cluster is {self.address!r}; legal: 'local', 'auto', 'HOST:PORT', "
                "'ray://HOST:PORT'"
            )
        if not self.num_cpus > 0:
            raise ValueError(f"num_cpus is {self.num_cpus}; legal: a number above 0")
        gpus = self.num_gpus
        if gpus is not None and not (0 <= gpus <= 1 or (gpus > 1 and float(gpus).is_integer())):
            raise ValueError(f"num_gpus is {gpus}; legal: a whole number, or a share from 0 to 1")
        if self.retries < 0:
            raise ValueError(f"retries is {self.retries}; legal: 0 or more")


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Connect this process to Ray, or use the connection that it has; a new one is closed at the end.

    Raises:
        ClusterError: the cluster cannot be reached.
        MissingDependencyError: Ray is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray reads it when it is imported
    ray = _import_ray()
    if ray.is_initialized():
        yield ray
        return
    is_main = threading.current_thread() is threading.main_thread()
    on_terminate, before = signal.getsignal(signal.SIGTERM), set(psutil.Process().children())
    started: set[psutil.Process] = set()
    try:
        try:
            _connect(ray, address)
        finally:
            started = set(psutil.Process().children()) - before  # none, if the cluster was there
        yield ray
    finally:
        _shut_down(ray, started)
        if is_main:
            signal.signal(signal.SIGTERM, on_terminate)  # Ray sets its own


def _shut_down(ray: Any, started: Iterable[psutil.Process]) -> None:
    """Disconnect, and end the processes that were started for this batch with all that they started.

    Ray waits a second for each of its helpers, which are Python programs (its autoscaler does not react), before it
    kills them. They have nothing to finish, and only its other processes end the workers in an orderly way.
    """
    everything = set(started)
    for process in started:
        with suppress(psutil.Error):
            everything.update(process.children(recursive=True))
            if process.cmdline()[:1] == [sys.executable]:
                process.kill()
    ray.shutdown()
    for process in everything:
        with suppress(psutil.Error):
            process.kill()


def _connect(ray: Any, address: str) -> None:
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == "local":
        options |= {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    try:
        place = _host_and_port(address)
        if place is not None:  # Ray itself tries for minutes
            socket.create_connection(place, timeout=_CONNECT_S).close()
        ray.init(address=address, **options)
    except (OSError, ValueError, RuntimeError, AssertionError, ray.exceptions.RayError) as error:
        raise ClusterError(
            f"Ray cannot be reached at {address!r} ({one_line(error)}); legal: 'local', which starts Ray on this "
            "machine, or the address of a running cluster: 'auto' on one of its machines, 'HOST:PORT', "
            "'ray://HOST:PORT'. If the cluster has a token, set RAY_AUTH_MODE=token"
        ) from error


def _import_ray() -> Any:
    try:
        import ray  # noqa: PLC0415 # type: ignore[import-not-found] - an extra
        import ray.exceptions  # noqa: PLC0415 # type: ignore[import-not-found]
    except ImportError as error:
        raise MissingDependencyError(
            f"a batch on Ray needs a package that cannot be imported ({error}); pip install 'realfill[ray]'"
        ) from error
    return ray


def resources_of_task(ray: Any, cluster: RayCluster) -> dict[str, float]:
    """Return what Ray reserves for a task.

    Raises:
        ClusterError: no machine of a cluster on this machine has it. Other clusters may start another machine for it.
    """
    num_gpus = cluster.num_gpus
    if num_gpus is None:
        num_gpus = 1.0 if ray.cluster_resources().get("GPU", 0) else 0.0
    asked = {"num_cpus": cluster.num_cpus, "num_gpus": num_gpus}
    if not _suitable_nodes(ray, asked):
        best = {name: max(n["Resources"].get(name, 0) for n in ray.nodes()) for name in ("CPU", "GPU")}
        problem = (
            f"a task asks for {cluster.num_cpus:g} CPUs and {num_gpus:g} GPUs, and no machine of the cluster has them "
            f"(at most {best['CPU']:g} and {best['GPU']:g})"
        )
        if cluster.address == "local":
            raise ClusterError(f"{problem}; ask for less")
        warn(f"{problem}; the batch waits for one")
    return asked


def _suitable_nodes(ray: Any, asked: Mapping[str, float]) -> list[Mapping[str, Any]]:
    return [
        node for node in ray.nodes()
        if node["Alive"]
        and node["Resources"].get("CPU", 0) >= asked["num_cpus"]
        and node["Resources"].get("GPU", 0) >= asked["num_gpus"]
    ]  # fmt: skip


def require_shared(ray: Any, shared: SharedFolder, sources: Sequence[Path], asked: Mapping[str, float]) -> None:
    """Let each machine of the cluster look at the folders before any work.

    Raises:
        ClusterError: a machine does not see them as this one does, or cannot run this version of realfill.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as Affinity  # noqa: PLC0415 # type: ignore[import-not-found]

    refs = {}
    for node in _suitable_nodes(ray, asked):
        strategy = Affinity(node["NodeID"], soft=False)
        task = ray.remote(SharedFolder.problem).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)
        refs[task.remote(shared, [source.absolute() for source in sources])] = node["NodeManagerHostname"]
    ray.wait(list(refs), num_returns=len(refs), timeout=_CHECK_S)
    problems = [problem for ref, host in refs.items() if (problem := _problem_at(ray, ref, host)) is not None]
    if problems:
        raise ClusterError(problems[0] + (f" (and {len(problems) - 1} machines more)" if problems[1:] else ""))


def _problem_at(ray: Any, ref: Any, host: str) -> str | None:
    failures = ray.exceptions
    try:
        return ray.get(ref, timeout=0)
    except failures.GetTimeoutError:
        return f"{host} started no process within {_CHECK_S:g} seconds"
    except (failures.RayTaskError, failures.RaySystemError) as error:
        return f"{host} cannot run realfill ({one_line(getattr(error, 'cause', None) or error)}); install it there"
    except failures.RayError:  # the machine has left the cluster meanwhile
        return None


def _host_and_port(address: str) -> tuple[str, int] | None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    return (host.strip("[]"), int(port)) if host and port.isdecimal() and int(port) < 65536 else None


def one_line(error: object) -> str:
    """Reduce the message of an error of Ray to its first line."""
    lines: Iterable[str] = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)[:300]
