"""The runtime: a fixed-rate control loop, the safety limiter in front of the robot, and the link to a robot's process.

Nothing is imported here; take what you need from its own module, e.g.
``from policies.runtime.loop import ControlLoop``.
"""
