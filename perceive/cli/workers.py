"""Playing episodes of a scripted expert, in this process or in several."""

from __future__ import annotations

import multiprocessing
import queue
import signal
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import Any

from envs.base import RobotEnv
from perceive.build import build
from perceive.cli.noise import BurstNoise
from policies.episodes import EpisodeHeader, EpisodeWriter
from sensors.action import ActionMode
from sensors.errors import DataError, PerceiveError, SpecError
from sensors.observation import Observation

POLL_S = 1.0  # how often the workers are looked after while nothing comes


@dataclass(frozen=True)
class Attempt:
    """One episode played: its seed, whether the expert solved it, and its control steps."""

    seed: int
    success: bool
    steps: int


def attempts(config: Mapping[str, Any], seeds: Sequence[int], workers: int) -> Iterator[Attempt]:
    """Play the seeds and write their episodes; yields in the order in which they end.

    Args:
        config: resolved config of ``perceive collect``.
        seeds: of the environment.
        workers: processes; with 1 everything happens in this one.

    Raises:
        PerceiveError: what a worker raised, or DataError when one died.
    """
    if workers == 1:
        yield from _play_all(config, seeds)
    else:
        yield from _in_processes(config, seeds, workers)


def open_env(config: Mapping[str, Any]) -> RobotEnv:
    """The environment of a config.

    Raises:
        SpecError: it is not a RobotEnv whose actions are end-effector poses, which is what experts give.
    """
    env = build(config["env"], where="env")
    if not isinstance(env, RobotEnv):
        raise SpecError("env", "an envs.base.RobotEnv", type(env).__name__, "Choose another env.")
    if env.action_spec.mode is not ActionMode.EE_POSE:
        env.close()
        raise SpecError(
            "env.action_mode", "ee_pose, which experts use", env.action_spec.mode.value, "env.action_mode=ee_pose"
        )
    return env


def play(env: RobotEnv, config: Mapping[str, Any], seed: int) -> Attempt:
    """One episode, written if it succeeded or failures are kept."""
    values, info = env.reset(seed=seed)
    expert = env.expert()
    noise = BurstNoise(**config["noise"], seed=seed)
    rig = env.rig
    name = type(expert).__name__
    header = EpisodeHeader(
        rig.sensor_spaces, rig.history, rig.rates_hz, env.action_spec, seed, config["env"], expert=name
    )
    writer = EpisodeWriter(config["output"], seed, header)
    over = False
    while not over:
        observation = Observation.from_dict(values, info["now_s"])
        action = expert.act()
        values, _, terminated, truncated, info = env.step(noise(action).values)
        writer.add(observation, action.values, info["action_sent"])
        over = terminated or truncated
    success = bool(info["is_success"])
    if success or config["keep_failures"]:
        writer.finish(success, env.rig.timing_report())
    return Attempt(seed, success, len(writer))


def _play_all(config: Mapping[str, Any], seeds: Iterable[int]) -> Iterator[Attempt]:
    env = open_env(config)
    try:
        for seed in seeds:
            yield play(env, config, seed)
    finally:
        env.close()


def _in_processes(config: Mapping[str, Any], seeds: Sequence[int], workers: int) -> Iterator[Attempt]:
    # "spawn": a forked child would inherit the threads of torch and of the physics server in a broken state.
    context = multiprocessing.get_context("spawn")
    jobs: Queue[int | None] = context.Queue()
    results: Queue[Attempt | PerceiveError] = context.Queue()
    for job in [*seeds, *[None] * workers]:
        jobs.put(job)
    processes = [context.Process(target=_work, args=(dict(config), jobs, results), daemon=True) for _ in range(workers)]
    for process in processes:
        process.start()
    try:
        for _ in seeds:
            result = _next(results, processes)
            if isinstance(result, PerceiveError):
                raise result
            yield result
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.terminate()
        for part in (jobs, results):
            part.cancel_join_thread()
            part.close()


def _next(results: Queue[Attempt | PerceiveError], processes: Sequence[BaseProcess]) -> Attempt | PerceiveError:
    while True:
        try:
            return results.get(timeout=POLL_S)
        except queue.Empty:
            dead = [process.exitcode for process in processes if process.exitcode not in (None, 0)]
            if dead:
                return DataError(
                    "perceive collect", "worker processes that live", f"one that ended with status {dead[0]}",
                    "It may have run out of memory: use fewer workers. Started again, it goes on where it was.",
                )  # fmt: skip


def _work(config: dict[str, Any], jobs: Queue[int | None], results: Queue[Attempt | PerceiveError]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    try:
        for attempt in _play_all(config, iter(jobs.get, None)):
            results.put(attempt)
    except PerceiveError as error:
        results.put(error)
    except Exception as error:
        details = "".join(traceback.format_exception(error)).strip()
        results.put(DataError("a collecting process", "no crash", f"{type(error).__name__}: {error}", details))
