"""RobotDescription: what the simulated world has to know of a robot to answer questions about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RobotDescription:
    """A model file and the meaning of its parts.

    Attributes:
        urdf: the model file; its root link stands at the origin of the base frame.
        arm_joints: names of the J joints of the arm, from the base on.
        finger_joints: names of the two prismatic joints of the gripper; each opens with growing value.
        wrist_joint: the joint between arm and hand, where force and torque are measured.
        tool_link: the link that carries the tool point.
        tool_offset_m: tool point along the link's z; the tool's axes are those of the link, its z is the approach.
        gripper_open_m: largest opening between the fingers, metres.
        foot_links: links that stand on the table and cannot collide.
    """

    urdf: Path
    arm_joints: tuple[str, ...]
    finger_joints: tuple[str, str]
    wrist_joint: str
    tool_link: str
    tool_offset_m: float
    gripper_open_m: float
    foot_links: tuple[str, ...]
