"""Camera calibration with a ChArUco board: intrinsics, where a camera is fixed, and how far to trust both.

``board`` what is printed and found; ``lens`` the pinhole with distortion; ``intrinsics`` and ``hand_eye`` the two
calibrations; ``rendering`` exact pictures of a board, to try and to test everything without a camera.
"""
