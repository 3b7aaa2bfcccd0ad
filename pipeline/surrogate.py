"""Stage three around stage two: runs that explore, a surrogate that learns from them, its own runs, and so on."""

from collections.abc import Sequence
from pathlib import Path

from cache.files import digest_json, require_writable
from cache.location import local_folder
from cache.runs import RunStore, StoredRun
from pipeline.config import SurrogateConfig
from pipeline.gains import matching_runs, stands
from pipeline.grid import plan, run_grid
from pipeline.task import Task
from stages.al.models import MODEL_FORMAT
from stages.al.protocol import CandidateLog, Protocol, ProtocolConfig
from stages.al.signals import RANKS, ROUND
from stages.surrogate.returns import RETURN_FORMAT, learn, save

FIRST_SEED = 1_000
"""Of the runs to learn from: far from those that strategies are compared on."""
INPUTS = tuple(name for name in RANKS + ROUND if "look_ahead" not in name)
"""What it looks at: expected look-ahead takes a third of the time of all signals, and made no difference beyond the
error on four pools."""
QUERIES = CandidateLog(log_seeds=10**6, log_every=1, log_candidates=0)


def learn_surrogate(config: SurrogateConfig, tasks: Sequence[Task], folder: Path) -> bool:
    """Explore every task's pool, learn, run what was learned there too, and learn again from all of it.

    Leaves the last model in the folder, those before in its subfolders, and the runs in a store of their own. Returns
    whether anything was learned anew.
    """
    require_writable(local_folder(config.data_root))
    store = RunStore(config.data_root / "explored")
    protocols = [exploration(config, task) for task in tasks]
    seeds = range(FIRST_SEED, FIRST_SEED + config.explore)
    runs = [
        _runs(config, task, protocol, _mixtures(task, config.explore), seeds, store)
        for task, protocol in zip(tasks, protocols, strict=True)
    ]
    new = False
    for turn in range(config.turns + 1):
        last = turn == config.turns
        place = folder if last else folder / f"turn-{turn}"
        seen = sorted({run.record["run"]["seed"] for pool in runs for run in pool})
        learned_from = digest_json([RETURN_FORMAT, INPUTS, [[run.path.name for run in pool] for pool in runs]])
        if not stands(place, learned_from):
            learned = learn(runs, INPUTS)
            about = {"pools": [dict(task.about) for task in tasks], "head": config.head, "learned_from": learned_from}
            save(learned, seen, about, MODEL_FORMAT, place)
            new = True
        if not last:
            first = FIRST_SEED + config.explore + turn * config.own
            own = [f"surrogate:{place}"] * config.own
            for pool, task, protocol in zip(runs, tasks, protocols, strict=True):
                pool += _runs(config, task, protocol, own, range(first, first + config.own), store)
    return new


def _mixtures(task: Task, n: int) -> list[str]:
    """Each pool has mixtures of its own, which do not depend on the other pools."""
    first = int(digest_json(dict(task.about))[:8], 16)
    return [f"explore:draw={draw}" for draw in range(first, first + n)]


def exploration(config: SurrogateConfig, task: Task) -> Protocol:
    """The protocol of a task's runs to learn from. Raises InputError where its pool is too small for it."""
    size = task.sizes[0]
    protocol = ProtocolConfig(budget=config.budget or "210").resolve(size)
    protocol.require_query(size)
    return protocol


def _runs(
    config: SurrogateConfig,
    task: Task,
    protocol: Protocol,
    strategies: Sequence[str],
    seeds: Sequence[int],
    store: RunStore,
) -> list[StoredRun]:
    """A run of each strategy with the seed beside it, with a log of what it queried."""
    cells = [
        plan(task, [config.head], [strategy], [seed], protocol, config.data_root, QUERIES)[0]
        for strategy, seed in zip(strategies, seeds, strict=True)
    ]
    return run_grid(task, cells, store, config.workers, config.engine)[0]


def compare(
    config: SurrogateConfig, task: Task, store: RunStore, seeds: Sequence[int] | None, folder: Path
) -> tuple[list[StoredRun], int]:
    """The surrogate beside the task's other runs, on their protocols and seeds; beside random where there are none.

    Returns all of them, and how many are new.
    """
    runs = matching_runs(store, task, config.head)
    others = [run for run in runs if "model_digest" not in run.record["run"]["strategy"]]
    protocols = {digest_json(run.record["run"]["protocol"]): run.record["run"]["protocol"] for run in others}
    done, new = list(others), 0
    if not protocols:
        protocol = ProtocolConfig(budget=config.budget or "210").resolve(task.sizes[0])
        protocols = {"": protocol.record()}
    for protocol in protocols.values():
        seen = sorted({run.record["run"]["seed"] for run in others if run.record["run"]["protocol"] == protocol})
        strategies = [f"surrogate:{folder}", *([] if seen else ["random"])]
        cells = plan(
            task, [config.head], strategies, seeds or seen or range(10), Protocol(**protocol), config.data_root
        )
        runs, count = run_grid(task, cells, store, config.workers, config.engine)
        done, new = done + runs, new + count
    return done, new
