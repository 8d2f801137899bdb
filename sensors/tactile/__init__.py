"""Simulated touch in batches: what a gel that is pressed in looks like and feels.

The one place in ``sensors`` that may import torch. ``import sensors`` loads nothing of it: its sensors are named by
class path in YAML.

Everywhere here a *height map* ``overlap_m`` is a float tensor [B, h, w] in metres, >= 0: how far the object would stand
inside the undeformed gel at the centre of each pixel. Row 0 is on top, +x to the right, +y down, +z out of the gel
towards what is touched, as in :class:`sensors.frames.GelImageFrame`. All lengths are metres, kernels included, so that
resolutions agree.
"""
