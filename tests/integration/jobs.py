"""Jobs for the engines: what the processes of test_engines.py do. Imports nothing heavy."""

import os
import signal
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info


def leave(name: str, folder: Path) -> None:
    """A file that says who did it, with how many threads."""
    np.ones((2, 2)) @ np.ones((2, 2))
    threads = max((library["num_threads"] for library in threadpool_info()), default=1)
    with (folder / name).open("a") as file:
        file.write(f"{os.getpid()} {threads}\n")


def die_first(name: str, folder: Path, times: int) -> None:
    """As the out-of-memory killer does it, the first `times` times."""
    deaths = folder / f"{name}.deaths"
    with deaths.open("a") as file:
        file.write("x")
    if deaths.stat().st_size <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    leave(name, folder)
