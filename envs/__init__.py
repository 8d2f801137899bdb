"""Environments: the PyBullet world, robots, tasks, scripted experts, and Gymnasium environments made of them.

Importing this package makes the ids ``perceive/Reach-v0``, ``perceive/Push-v0``, ``perceive/Lift-v0`` and
``perceive/PickPlace-v0`` known to Gymnasium, so ``gymnasium.make("envs:perceive/Lift-v0")`` works in one line. Nothing
else happens at import: the simulator is loaded when an environment is made.
"""

from envs.presets import register

register()
