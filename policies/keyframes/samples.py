"""Samples: what a demonstration teaches about key poses. From a frame, the next key pose is to be predicted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.episode_file import Episode
from policies.episodes import EpisodeHeader
from policies.keyframes.discovery import DiscoverySettings, Trace, discover_in, gripper_states, same_place
from sensors.action import ActionSpec
from sensors.errors import DataError, SpecError, nearest
from sensors.geometry import FloatArray, matrix_to_rotation_6d, rotation_6d_to_matrix

NEAR_M, NEAR_RAD = 0.01, float(np.deg2rad(5.0))  # a key pose so near, with the same gripper, is reached already
_FIELDS = ("velocity_rad_s", "gripper_m", "base_from_tool")


@dataclass(frozen=True, eq=False)
class KeyEpisode:
    """One demonstration as key poses.

    Attributes:
        keyframes: int64 [K], rising.
        base_from_tool: float64 [K, 4, 4], the key poses.
        targets: float32 [K, A], the key-pose action that leads to each of them.
        rows: int64 [N], rising; the frames that samples start from.
        goals: int64 [N], for each of them the place in ``keyframes`` of the first keyframe after it.
        starts: bool [N], whether a policy will see that frame: the first one, and every keyframe.
    """

    keyframes: NDArray[np.int64]
    base_from_tool: FloatArray
    targets: NDArray[np.float32]
    rows: NDArray[np.int64]
    goals: NDArray[np.int64]
    starts: NDArray[np.bool_]


def joint_sensor(header: EpisodeHeader, name: str | None = None) -> str:
    """The sensor that measures joints, gripper and tool.

    Args:
        header: of the episodes.
        name: which one; None = the only one.

    Raises:
        DataError: there is none, there are several and none is named, or the named one measures something else.
    """
    able = [n for n, space in header.sensor_spaces.items() if set(_FIELDS) <= set(space.spaces)]
    if name is None and len(able) == 1:
        return able[0]
    if name in able:
        return name
    where, wanted = "keyframes", f"a sensor with {', '.join(_FIELDS)}"
    if name is None:
        got = f"{len(able)} of them: {able}" if able else f"{sorted(header.sensor_spaces)}, none of which has them"
        fix = "Name one with joints=..." if able else "Record demonstrations with a joint sensor."
        raise DataError(where, wanted, got, fix)
    raise DataError(where, wanted, f"joints='{name}'", nearest(name, able))


def trace_of(episode: Episode, joints: str) -> Trace:
    """What the robot really did at every control step of an episode, whatever the delay of its sensor.

    The last pose is not the measured but the commanded one: an episode ends with success, in the middle of the last
    move, so the tool was last seen short of where the move led to. That is what the last key pose has to be.

    Raises:
        DataError: the sensor measured nothing, or the episode is too short.
    """
    where = str(episode.path)
    sound = np.flatnonzero(episode.frames(joints, "valid"))
    if not len(sound):
        raise DataError(where, f"measurements of '{joints}'", "none that is valid", "Leave it out.")
    # By the time of capture, not of arrival: the newest measurement made up to each step (float32 ages round by 1e-6).
    newest = np.searchsorted(episode.frames(joints, "stamp_s")[sound], episode.time_s + 1e-6, "right") - 1
    frame = sound[np.maximum(newest, 0)]
    spec, action = episode.header.action, episode.action.astype(np.float64)
    poses = episode.frames(joints, "base_from_tool")[frame].astype(np.float64)
    poses[-1] = _commanded(where, action[-1], spec)
    try:
        return Trace(
            episode.frames(joints, "velocity_rad_s")[frame].astype(np.float64),
            poses,
            episode.frames(joints, "gripper_m")[frame][:, 0].astype(np.float64),
            action[:, spec.part("gripper")][:, 0],
            1.0 / spec.period_s,
        )
    except DataError as error:
        raise DataError(where, error.expected, error.got, error.fix) from error


def key_episode(
    episode: Episode,
    joints: str,
    spec: ActionSpec,
    every: int,
    fine_m: float,
    settings: DiscoverySettings,
) -> KeyEpisode:
    """The key poses of an episode and the frames from which each is to be predicted.

    Samples start from every ``every``-th frame and from the frames that a policy will see: the first, and every
    keyframe. Left out are those whose key pose is reached already (within 1 cm and 5 degrees, the same gripper).

    Args:
        episode: a demonstration in end-effector poses.
        joints: its joint sensor.
        spec: of the key-pose actions (:func:`sensors.action.key_pose_spec`).
        every: stride of the frames.
        fine_m: a move shorter than this, and any that starts or ends where the gripper opens or closes, is fine motion,
            for which touching is allowed.
        settings: of the discovery.

    Raises:
        DataError: too short, nothing measured, or not a single sample.
    """
    trace = trace_of(episode, joints)
    keyframes = discover_in(trace, settings)
    opened = gripper_states(trace, settings)
    poses = trace.base_from_tool[keyframes]
    candidates = np.union1d(np.arange(0, len(trace) - 1, every), [0, *keyframes[:-1]]).astype(np.int64)
    goals = np.searchsorted(keyframes, candidates, "right")
    there = [
        opened[row] == opened[keyframes[goal]] and same_place(trace.base_from_tool[row], poses[goal], NEAR_M, NEAR_RAD)
        for row, goal in zip(candidates, goals, strict=True)
    ]
    rows, goals = candidates[~np.array(there)], goals[~np.array(there)]
    if not len(rows):
        raise DataError(
            str(episode.path), "a robot that goes somewhere", f"{len(trace)} frames at one pose", "Leave it out."
        )
    fine = _fine(trace, keyframes, opened, fine_m)
    targets = np.empty((len(keyframes), spec.size), np.float32)
    targets[:, spec.part("position_m")] = poses[:, :3, 3]
    targets[:, spec.part("rotation_6d")] = matrix_to_rotation_6d(poses[:, :3, :3])
    targets[:, spec.part("gripper")] = np.where(opened[keyframes], 1.0, -1.0)[:, None]
    targets[:, spec.part("avoid")] = np.where(fine, -1.0, 1.0)[:, None]
    starts = np.isin(rows, [0, *keyframes])
    return KeyEpisode(keyframes, poses, targets, rows, goals, starts)


def _fine(trace: Trace, keyframes: NDArray[np.int64], opened: NDArray[np.bool_], fine_m: float) -> NDArray[np.bool_]:
    """bool [K], whether the move to each key pose may touch.

    Demonstrations carry no such flag. PerAct's is what RLBench's planner was told; this is ours: a hand that opens or
    closes has something between its fingers, or is about to, and a short move is an approach, a press or a retreat.
    """
    stations = np.concatenate([[0], keyframes])
    positions_m = trace.base_from_tool[stations, :3, 3]
    fine: NDArray[np.bool_] = np.linalg.norm(np.diff(positions_m, axis=0), axis=-1) < fine_m
    acts = opened[stations[1:]] != opened[stations[:-1]]
    fine |= acts
    fine[1:] |= acts[:-1]
    return fine


def _commanded(where: str, action: FloatArray, spec: ActionSpec) -> FloatArray:
    """``base_from_tool`` [4, 4] that an end-effector-pose action asks for."""
    pose = np.eye(4)
    pose[:3, 3] = action[spec.part("position_m")]
    try:
        pose[:3, :3] = rotation_6d_to_matrix(action[spec.part("rotation_6d")])
    except SpecError as error:
        raise DataError(f"{where}, last action", error.expected, error.got, "Record it again.") from error
    return pose
