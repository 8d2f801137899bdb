"""Follow a known object through an RGB-D film in which it is hidden for a while, and find it again.
Run: python examples/20_track_an_object.py [seconds]
Your own mesh and camera: ObjectModel.make(...) or a mesh file, and the RgbdFrames of any camera of the rig."""

import sys

import numpy as np

from perceive.pose.tracking.depth_search import DepthSearch
from perceive.pose.tracking.sequence import AWAY, MovingSequence
from perceive.pose.tracking.shapes import bracket
from perceive.pose.tracking.tracker import PoseTracker

model = bracket()
length_s = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
film = MovingSequence(model, seed=1, cover=[(0, AWAY), (0.5, AWAY), (0.7, 1.0), (1.2, 1.0), (1.4, AWAY)])
tracker = PoseTracker(model, DepthSearch([model]))  # found by the search, then followed
for stamp_s in np.arange(0.0, length_s, 0.1):
    shot = film.shot(float(stamp_s))
    said = tracker.update(shot.frame)
    place = "never seen" if said.camera_from_object is None else np.round(said.camera_from_object[:3, 3], 3)
    off = ""
    if said.valid and said.camera_from_object is not None:
        off = f"off by {1e3 * np.linalg.norm(said.camera_from_object[:3, 3] - shot.camera_from_object[:3, 3]):.1f} mm"
    print(f"{stamp_s:.1f} s  {said.state:9s} {place} m, {said.age_s:.1f} s old; {said.reason}; {off}")
