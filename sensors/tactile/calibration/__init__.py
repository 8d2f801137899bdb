"""Calibration of fingertips that film their gel: from pictures of a ball pressed into it to colours, slopes and depth.

``contact`` finds the ball's circle in a picture; ``samples`` knows the slopes of every pixel in it; ``spline_fit``
makes of them the smooth colours, and so the table, of this fingertip; ``unit`` takes a calibration over to another
fingertip of the kind; ``reader`` goes the other way, from a picture to the depth of its print; ``result`` is the file.
"""
