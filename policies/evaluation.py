"""Evaluation: many seeds, several processes, one figure with its interval."""

from __future__ import annotations

import multiprocessing
import pickle
import queue
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import Any

import gymnasium
import numpy as np
import torch
from tqdm import tqdm

from perceive.results import wilson_interval
from policies.base import Policy, PolicyFor
from policies.rollout import EpisodeResult, robot_of, rollout
from sensors.errors import SensorError, SpecError
from sensors.spec import Json

MakeEnv = Callable[[], "gymnasium.Env[Any, Any]"]
MakePolicy = Callable[[], Policy] | PolicyFor
_Answer = tuple[int, EpisodeResult] | Exception


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """The episodes of an evaluation, in the order of the seeds.

    Attributes:
        episodes: one per seed.
        disabled: the sensors that were unplugged.
    """

    episodes: Sequence[EpisodeResult]
    disabled: frozenset[str] = frozenset()

    @property
    def count(self) -> int:
        """Episodes."""
        return len(self.episodes)

    @property
    def successes(self) -> int:
        """Episodes that ended in success."""
        return sum(episode.success for episode in self.episodes)

    @property
    def success_rate(self) -> float:
        """Fraction of episodes that ended in success."""
        return self.successes / self.count

    @property
    def planner_failures(self) -> int:
        """Failed episodes in which the robot's planner could not carry out a move; the others are the policy's own."""
        return sum(not episode.success and episode.failed_plans > 0 for episode in self.episodes)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the success rate."""
        return wilson_interval(self.successes, self.count)

    def latency_ms(self, percent: float) -> float:
        """A percentile over all steps of the CPU milliseconds from Observation to Action."""
        return float(np.percentile(np.concatenate([e.latency_s for e in self.episodes]), percent) * 1e3)

    def to_json(self) -> Json:
        """Plain data without the films."""
        low, high = self.interval
        return {
            "successes": self.successes,
            "episodes": self.count,
            "success_rate": self.success_rate,
            "interval": [low, high],
            "disabled": sorted(self.disabled),
            "latency_ms_p50": self.latency_ms(50),
            "latency_ms_p95": self.latency_ms(95),
            "planner_failures": self.planner_failures,
            "mean_steps": float(np.mean([e.steps for e in self.episodes])),
            "by_seed": [
                {"seed": e.seed, "success": e.success, "steps": e.steps, "failed_plans": e.failed_plans}
                for e in self.episodes
            ],
        }


def evaluate(
    make_env: MakeEnv,
    make_policy: MakePolicy,
    seeds: Sequence[int],
    *,
    workers: int = 1,
    disabled: frozenset[str] = frozenset(),
    max_steps: int | None = None,
    film: Sequence[str] = (),
    film_seeds: Sequence[int] = (),
    progress: bool = False,
    label: str = "evaluate",
) -> EvaluationResult:
    """Roll a policy out on every seed. The result does not depend on the number of workers.

    Args:
        make_env: makes the environment; with more than one worker it must be picklable, e.g.
            ``functools.partial(build, config)``.
        make_policy: makes the policy, picklable likewise, e.g. ``functools.partial(LearnedPolicy.load, path)``; a
            :class:`policies.base.PolicyFor` is told the environment's actions.
        seeds: one episode each.
        workers: processes, each with one torch thread (also with 1, which stays in this process).
        disabled: sensors to unplug.
        max_steps: stop an episode here even if the environment goes on.
        film: cameras to film.
        film_seeds: the seeds whose episodes are filmed.
        progress: show a progress bar with the success so far.
        label: its name.

    Raises:
        SpecError: no seed.
        SensorError: a worker process died.
    """
    if not seeds:
        raise SpecError("evaluate", "at least one seed", "none", "Name the seeds.")
    task = _Task(make_env, make_policy, disabled, max_steps, tuple(film), frozenset(film_seeds))
    shares = min(workers, len(seeds))
    results: dict[int, EpisodeResult] = {}
    with tqdm(total=len(seeds), desc=label, disable=not progress) as bar:
        for place, result in _in_processes(task, seeds, shares) if shares > 1 else _here(task, seeds):
            results[place] = result
            bar.set_postfix_str(f"{sum(r.success for r in results.values())} succeeded", refresh=False)
            bar.update()
    return EvaluationResult([results[place] for place in range(len(seeds))], disabled)


@dataclass(frozen=True, eq=False)
class _Task:
    """What a worker has to know."""

    make_env: MakeEnv
    make_policy: MakePolicy
    disabled: frozenset[str]
    max_steps: int | None
    film: tuple[str, ...]
    film_seeds: frozenset[int]


def _episodes(task: _Task, work: Iterator[tuple[int, int]]) -> Iterator[tuple[int, EpisodeResult]]:
    """Place and result of each (place, seed) of the work, in one environment."""
    env = task.make_env()
    try:
        robot_of(env).rig.disable(task.disabled)
        known = task.make_policy
        policy = known.make(robot_of(env).action_spec) if isinstance(known, PolicyFor) else known()
        for place, seed in work:
            film = task.film if seed in task.film_seeds else ()
            yield place, rollout(env, policy, seed, task.max_steps, film=film)
    finally:
        env.close()


def _here(task: _Task, seeds: Sequence[int]) -> Iterator[tuple[int, EpisodeResult]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the workers: the order of a sum may depend on the number of threads
    try:
        yield from _episodes(task, iter(enumerate(seeds)))
    finally:
        torch.set_num_threads(threads)


def _in_processes(task: _Task, seeds: Sequence[int], workers: int) -> Iterator[tuple[int, EpisodeResult]]:
    # Spawned, not forked: a forked child would inherit torch's threads and the simulator's state.
    context = multiprocessing.get_context("spawn")
    work: Queue[tuple[int, int] | None] = context.Queue()
    done: Queue[_Answer] = context.Queue()
    for item in (*enumerate(seeds), *[None] * workers):
        work.put(item)
    processes = [context.Process(target=_worker, args=(task, work, done), daemon=True) for _ in range(workers)]
    for process in processes:
        process.start()
    try:
        for _ in seeds:
            result = _next(done, processes)
            if isinstance(result, Exception):
                raise result
            yield result
    finally:
        for process in processes:
            process.terminate()
            process.join()
        work.cancel_join_thread()


def _next(done: Queue[_Answer], processes: Sequence[BaseProcess]) -> _Answer:
    """The next answer of any worker.

    Raises:
        SensorError: a worker died, so that the answer may never come.
    """
    while True:
        over = [p.exitcode for p in processes]  # asked before the queue: an answer put before the end is not lost
        try:
            return done.get(timeout=1.0)
        except queue.Empty:
            if any(over) or None not in over:
                fix = "See what it printed; a negative code is a signal, -9 often too little memory."
                raise SensorError("evaluate", "living workers", f"exit codes {over}", fix) from None


def _worker(task: _Task, work: Queue[tuple[int, int] | None], done: Queue[_Answer]) -> None:
    torch.set_num_threads(1)
    try:
        for item in _episodes(task, iter(work.get, None)):
            done.put(item)
    except Exception as error:  # handed to the parent, which raises it
        traceback.print_exc()
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes; some exceptions do not survive the trip
            done.put(error)
        except Exception:
            done.put(RuntimeError(f"{type(error).__name__} in a worker: {error}"))
    finally:
        done.close()
        done.join_thread()
