"""The action codec: an exact inverse, relative to the gripper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from perceive.geometry import matrix_to_rotation_6d, rotation_6d_to_matrix, turn_z
from perceive.heads.base import HeadContext
from perceive.heads.codec import ActionCodec, chunk_l1
from perceive.normalize import FieldStats
from perceive.tokens import Tokens
from sensors.action import ActionMode, ActionSpec
from sensors.geometry import axis_angle_to_matrix
from sensors.geometry import rotation_6d_to_matrix as numpy_rotation_6d_to_matrix
from tests.perceive.scene import SPEC

JOINT_SPEC = ActionSpec(
    ActionMode.JOINT_POSITION,
    spaces.Box(-3, 3, (8,), np.float32),
    {"position_rad": (0, 7), "gripper": (7, 8)},
    period_s=1 / 12,
)
vectors = st.tuples(*[st.floats(-3, 3)] * 3).map(np.array)


def context(origin_m: torch.Tensor, rotation: torch.Tensor) -> HeadContext:
    count = origin_m.shape[0]
    empty = torch.zeros(count, 0, dtype=torch.bool)
    tokens = Tokens(torch.zeros(count, 0, 8), torch.zeros(count, 0, 3), empty, torch.zeros(count, 0), empty)
    return HeadContext(torch.zeros(count, 1, 8), tokens, origin_m, rotation)


def action(position: np.ndarray, rotation: np.ndarray, gripper: float) -> torch.Tensor:
    columns = np.concatenate([rotation[:, 0], rotation[:, 1]])
    return torch.from_numpy(np.concatenate([position, columns, [gripper]]))[None, None]


@given(tool=vectors, turn=vectors, position=vectors, wanted=vectors, gripper=st.floats(-1, 1))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_decode_inverts_encode(
    tool: np.ndarray, turn: np.ndarray, position: np.ndarray, wanted: np.ndarray, gripper: float
) -> None:
    codec = ActionCodec(SPEC).double()
    here = context(torch.from_numpy(tool)[None], torch.from_numpy(axis_angle_to_matrix(turn))[None])
    value = action(position, axis_angle_to_matrix(wanted), gripper)
    torch.testing.assert_close(codec.decode(codec.encode(value, here), here), value, rtol=0, atol=1e-9)


@given(tool=vectors, turn=vectors)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_staying_put_is_zero(tool: np.ndarray, turn: np.ndarray) -> None:
    codec, rotation = ActionCodec(SPEC).double(), axis_angle_to_matrix(turn)
    here = context(torch.from_numpy(tool)[None], torch.from_numpy(rotation)[None])
    latent = codec.encode(action(tool, rotation, 0.0), here)
    torch.testing.assert_close(latent, torch.zeros_like(latent), rtol=0, atol=1e-9)


def test_position_is_metres_from_the_tool_over_the_reach() -> None:
    codec = ActionCodec(SPEC, reach_m=0.1).double()
    here = context(torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64), torch.eye(3, dtype=torch.float64)[None])
    latent = codec.encode(action(np.array([1.1, 2.0, 2.8]), np.eye(3), 0.5), here)
    torch.testing.assert_close(latent[0, 0, :3], torch.tensor([1.0, 0.0, -2.0], dtype=torch.float64))
    assert latent[0, 0, 9] == 0.5


def test_rotation_is_measured_in_base_axes() -> None:
    """The same turn of the tool about the base's z axis is the same number, whatever way the tool points."""
    codec = ActionCodec(SPEC).double()
    lift = axis_angle_to_matrix([0.0, 0.0, 0.4])
    latents = []
    for start in ([np.pi, 0.0, 0.0], [0.3, -1.0, 0.2]):
        tool = axis_angle_to_matrix(start)
        here = context(torch.zeros(1, 3, dtype=torch.float64), torch.from_numpy(tool)[None])
        latents.append(codec.encode(action(np.zeros(3), lift @ tool, 0.0), here))
    torch.testing.assert_close(latents[0], latents[1], rtol=0, atol=1e-12)


def test_decoded_rotations_are_orthonormal() -> None:
    here = context(torch.zeros(4, 3), torch.eye(3).expand(4, 3, 3))
    decoded = ActionCodec(SPEC).decode(torch.randn(4, 5, 10), here)
    matrix = rotation_6d_to_matrix(decoded[..., 3:9])
    torch.testing.assert_close(matrix @ matrix.transpose(-1, -2), torch.eye(3).expand(4, 5, 3, 3))
    torch.testing.assert_close(matrix_to_rotation_6d(matrix), decoded[..., 3:9])


def test_joint_actions_are_normalised_by_statistics_and_come_back() -> None:
    codec = ActionCodec(JOINT_SPEC)
    low = np.zeros(8)
    codec.fit({"action": FieldStats(np.arange(8.0), np.full(8, 0.5), low, low)})
    here = context(torch.zeros(2, 3), torch.eye(3).expand(2, 3, 3))
    value = torch.randn(2, 3, 8)
    latent = codec.encode(value, here)
    torch.testing.assert_close(latent[..., :7], (value[..., :7] - torch.arange(7.0)) / 0.5)
    assert torch.equal(latent[..., 7], value[..., 7])  # the gripper stays
    torch.testing.assert_close(codec.decode(latent, here), value)


def test_torch_and_numpy_agree_on_rotations() -> None:
    value = np.random.default_rng(0).normal(size=(20, 6))
    torch.testing.assert_close(
        rotation_6d_to_matrix(torch.from_numpy(value)), torch.from_numpy(numpy_rotation_6d_to_matrix(value))
    )
    quarter = turn_z(torch.tensor([np.pi / 2], dtype=torch.float64))[0]
    torch.testing.assert_close(
        quarter[:3, :3], torch.from_numpy(axis_angle_to_matrix([0, 0, np.pi / 2])), rtol=0, atol=1e-12
    )


def test_chunk_error_counts_valid_steps_only() -> None:
    predicted = torch.zeros(2, 2, 3, requires_grad=True)
    wanted = torch.ones(2, 2, 3)
    wanted[1] = torch.nan
    valid = torch.tensor([[True, True], [False, False]])
    error = chunk_l1(predicted, wanted, valid)
    assert error.item() == 1.0
    error.backward()
    assert predicted.grad is not None
    assert torch.isfinite(predicted.grad).all()
    assert (predicted.grad[1] == 0).all()
    assert chunk_l1(predicted, wanted, torch.zeros_like(valid)).item() == 0.0


def test_positions_need_no_statistics() -> None:
    codec = ActionCodec(SPEC)
    codec.fit({})
    assert codec.reach_m == pytest.approx(0.05)
