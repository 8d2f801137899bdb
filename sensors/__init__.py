"""Sensors: the numpy vocabulary (frames, observations, geometry, errors), adapters, timelines and the rig.

Importing this package never imports torch, pybullet or a vendor SDK.
"""
