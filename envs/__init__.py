"""Environments: the PyBullet world, robots, tasks, scripted experts, and Gymnasium environments made of them.

Importing this package makes the ids of :mod:`envs.presets` and :mod:`envs.touch_presets`, as ``perceive/Lift-v0``,
known to Gymnasium, so ``gymnasium.make("envs:perceive/Lift-v0")`` works in one line. Nothing else happens at import:
the simulator is loaded when an environment is made.
"""

from envs import presets, touch_presets

presets.register()
touch_presets.register()
