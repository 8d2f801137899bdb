"""Render what a fingertip sees when a ball is pressed into its gel: python examples/13_feel_a_press.py [press.png]."""

import sys

import matplotlib.pyplot as plt

from sensors.tactile import shapes
from sensors.tactile.presets import preset_optics

if __name__ == "__main__":
    optics = preset_optics("digit", rows=320, columns=240, shadow=True)
    ball = shapes.sphere(optics.gel, radius_m=0.004, depth_m=0.001)  # how far it stands in the gel, [1, h, w] metres
    picture = optics.picture(ball)[0].numpy()  # uint8 [h, w, 3]
    path = sys.argv[1] if len(sys.argv) > 1 else "press.png"
    plt.imsave(path, picture)
    print(
        f"a ball {1000 * float(ball.max()):.1f} mm deep in a gel of {picture.shape[1]} x {picture.shape[0]} px: {path}"
    )
