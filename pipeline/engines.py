"""Where the jobs of a grid are done: in processes of this machine, or on a dask.distributed cluster.

A job is a picklable callable without arguments that stores its own result, such as a `functools.partial`. An engine
yields each job when it is done, in whatever order. What it starts, it ends, also after Ctrl-C.
"""

import asyncio
import logging
import os
import re
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from multiprocessing import active_children, resource_tracker
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeVar

from joblib.externals.loky import ProcessPoolExecutor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from cache.errors import AlcoveError, InputError
from stages.registry import Registry

J = TypeVar("J", bound=Callable[[], object])
KILLS = 3
"""A grid is given up when so many workers were killed and no job was finished in between."""
PATIENCE = 10
"""Seconds until a scheduler that does not answer, or has no workers, is given up."""
_GO_ON = "what is finished is kept, run the same command again to go on"
_LIBRARIES = ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "BLIS_NUM", "VECLIB_MAXIMUM", "NUMBA_NUM", "NUMEXPR_NUM")
_ONE_THREAD = {f"{library}_THREADS": "1" for library in _LIBRARIES}


class Engine(Protocol):
    def finish(self, jobs: Sequence[J], workers: int, shared: Path) -> Generator[J]:
        """Do the jobs, and yield each when it is done.

        workers : processes, 0 for one per core; shared : a folder the jobs read, which every worker must see
        Raises AlcoveError where no worker can be had, or they are killed again and again, and what a job raises.
        """


ENGINES = Registry("engine")


def build_engine(spec: str) -> Engine:
    """The engine that `processes`, `dask` or `dask:ADDRESS` names; nothing is started yet. Raises InputError."""
    name, _, address = spec.partition(":")
    engine = ENGINES.get(name)
    if engine is not Dask:
        if address:
            raise InputError(f"engine={spec!r}: {name} takes nothing after a colon")
        return engine()
    if not find_spec("distributed"):
        raise InputError(f"engine={spec!r} needs a package that is not installed: pip install 'alcove[dask]'")
    if address and not re.fullmatch(r"[a-z]+://.+:\d+", address):
        raise InputError(f"engine={spec!r} names no scheduler: write dask:tcp://HOST:8786")
    return Dask(address)


@ENGINES.register("processes")
@dataclass(frozen=True)
class Processes:
    """Processes of this machine, started by joblib's loky; a single worker is the main process itself.

    Every worker has an executor of its own: one that is killed takes down only its own job, which is done again after
    all others, when there may be more memory to have.
    """

    def finish(self, jobs: Sequence[J], workers: int, shared: Path) -> Generator[J]:
        workers = min(workers or os.cpu_count() or 1, len(jobs))
        if workers > 1:
            yield from self._finish_in(jobs, [_one_process() for _ in range(workers)])
            return
        for job in jobs:
            job()
            yield job

    def _finish_in(self, jobs: Sequence[J], idle: list[Any]) -> Generator[J]:
        warnings.filterwarnings("ignore", "A worker stopped while some jobs")  # loky takes torch for a memory leak
        waiting, running = deque(jobs), dict[Future[object], tuple[Any, J]]()
        kills = kills_in_a_row = 0
        try:
            while waiting or running:
                while waiting and idle:
                    executor, job = idle.pop(), waiting.popleft()
                    running[_submit(executor, job)] = executor, job
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    executor, job = running.pop(future)
                    idle.append(executor)
                    try:
                        future.result()
                    except TerminatedWorkerError as error:
                        kills, kills_in_a_row = kills + 1, kills_in_a_row + 1
                        if kills_in_a_row == KILLS:
                            raise _killed(f"{KILLS} worker processes were killed one after the other") from error
                        warnings.warn(
                            f"a worker process was killed, probably for want of memory; what it was at is done "
                            f"again, the others go on ({kills} killed so far)",
                            stacklevel=2,
                        )
                        idle[-1] = _one_process()
                        waiting.append(job)
                        continue
                    kills_in_a_row = 0
                    yield job
        finally:
            for executor in [*idle, *(executor for executor, _ in running.values())]:
                executor.shutdown(kill_workers=True)


@ENGINES.register("dask")
@dataclass(frozen=True)
class Dask:
    """A dask.distributed cluster: a running scheduler's, or without an address one of processes of this machine.

    Through dask's own client: joblib's backend for it never reports a job that dask gives up because it kills its
    workers, and waits for ever (joblib 1.6); with a single worker it computes in the main process.
    """

    address: str = ""

    def finish(self, jobs: Sequence[J], workers: int, shared: Path) -> Generator[J]:
        from distributed import KilledWorker, as_completed

        waiting = iter(jobs)
        with self._client(workers, len(jobs)) as client:
            self._check(client, shared)
            threads: dict[str, int] = {}
            running = as_completed(loop=client.loop)
            job_of: dict[str, J] = {}
            while True:
                threads = _threads(client, threads)
                # few at a time: what waits takes the scheduler's memory
                for job in islice(waiting, max(0, 2 * sum(threads.values()) - len(job_of))):
                    future = client.submit(job, pure=False)
                    job_of[future.key] = job
                    running.add(future)
                if not job_of:
                    return
                future = next(running)
                try:
                    future.result()
                except KilledWorker as error:
                    raise _killed("one run killed its dask worker again and again") from error
                except CancelledError as error:
                    raise AlcoveError(f"{self._name} is gone: {_GO_ON}") from error
                yield job_of.pop(future.key)

    @property
    def _name(self) -> str:
        return f"the dask scheduler at {self.address}" if self.address else "the dask cluster of this machine"

    @contextmanager
    def _client(self, workers: int, n_jobs: int) -> Iterator[Any]:
        """Raises AlcoveError where the scheduler does not answer or has no workers."""
        from distributed import Client
        from distributed.utils import silence_logging_cmgr

        with ExitStack() as stack:
            stack.enter_context(silence_logging_cmgr(logging.CRITICAL))  # what matters is raised or warned of
            if self.address:
                _require_scheduler(self.address)
                if workers:
                    warnings.warn(f"WORKERS={workers} is ignored: {self._name} has its own", stacklevel=2)
                cluster: Any = self.address
            else:
                cluster = stack.enter_context(_local_cluster(min(workers or os.cpu_count() or 1, n_jobs)))
            client = stack.enter_context(Client(cluster, timeout=PATIENCE, set_as_default=False))
            try:
                client.wait_for_workers(1, timeout=PATIENCE)
            except TimeoutError as error:
                raise AlcoveError(
                    f"{self._name} has no workers: start `dask worker {self.address} --nthreads 1`"
                ) from error
            yield client

    def _check(self, client: Any, shared: Path) -> None:
        """Raises AlcoveError where the scheduler or a worker has not what the jobs need: a job would be lost on it."""
        try:
            client.run_on_scheduler(_sees, shared)
            seen = client.run(_sees, shared)
        except Exception as error:  # a bare Exception with the other side's text
            raise AlcoveError(
                f"{self._name} and its workers must run where this very alcove is installed ({error})"
            ) from error
        for worker in (worker for worker, sees in seen.items() if not sees):
            raise AlcoveError(
                f"the dask worker {worker} does not see {shared}: its machine needs the data root at the same path"
            )


def _sees(folder: Path) -> bool:
    return folder.is_dir()


@contextmanager
def _local_cluster(workers: int) -> Iterator[Any]:
    """Processes of this machine, without a limit of their own on memory; nothing else is left of them."""
    import dask
    from distributed import LocalCluster

    settings = dask.config.set({"distributed.scheduler.allowed-failures": KILLS - 1})
    before = active_children()
    with settings, TemporaryDirectory() as folder:
        with _interrupts_held():
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                memory_limit=None,
                dashboard_address=":0",  # None would take port 8787
                local_directory=folder,
                silence_logs=logging.CRITICAL,
            )
        try:
            yield cluster
        finally:
            with suppress(
                AssertionError, TimeoutError
            ):  # of a worker that was just being started again in place of a killed one
                cluster.close(timeout=PATIENCE)
            for worker in set(active_children()) - set(before):
                worker.kill()
                worker.join()


def _require_scheduler(address: str) -> None:
    """Raises AlcoveError where no scheduler answers; a client that fails on one takes long to go away."""
    from distributed.comm import connect
    from distributed.security import Security

    async def shake_hands() -> None:
        comm = await connect(address, timeout=PATIENCE, **Security().get_connection_args("client"))
        await comm.close()

    try:
        asyncio.run(shake_hands())
    except (OSError, ValueError, MemoryError) as error:  # of a web server's answer it makes a gigantic message
        raise AlcoveError(
            f"no dask scheduler answers at {address}: start one there with `dask scheduler`, or leave out the address "
            f"and ENGINE=dask starts a cluster on this machine"
        ) from error


def _threads(client: Any, before: Mapping[str, int]) -> dict[str, int]:
    """Each worker's number of threads; warns of workers that were there before."""
    now: dict[str, int] = client.nthreads()
    if lost := before.keys() - now.keys():
        warnings.warn(f"dask lost the worker {', '.join(sorted(lost))}: its runs are done again", stacklevel=2)
    return now


def _one_process() -> Any:
    return ProcessPoolExecutor(1, initializer=_end_with, initargs=(os.getpid(),), env=_ONE_THREAD)


def _submit(executor: Any, job: Callable[[], object]) -> Future[object]:
    """A future also where the worker was killed while it had nothing to do."""
    try:
        with _interrupts_held():
            future: Future[object] = executor.submit(job)
    except TerminatedWorkerError as error:
        future = Future()
        future.set_exception(error)
    return future


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes that are started here never see a Ctrl-C: the terminal sends it to all, the main one acts on it."""
    resource_tracker.ensure_running()  # when it starts later, it lets the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with(parent: int) -> None:
    """In a worker: end soon after the main process, however that ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _killed(what: str) -> AlcoveError:
    return AlcoveError(
        f"{what}, probably for want of memory: run again with WORKERS=1 or a smaller PCA=, what is finished is kept"
    )
