"""A film of what an expert sees and feels: a gel camera on one finger, a field of forces on the other.
Run: python examples/15_see_what_fingers_feel.py"""

from perceive.cli import main

if __name__ == "__main__":
    fingers = ["sensor@rig.sensors.touch_left=digit_left_sim", "sensor@rig.sensors.touch_right=force_field_right"]
    main(["view", "env=insert_peg", *fingers, "to=mp4", "output=seen"])  # to=rerun: look around in it
