"""Preprocessing of point clouds in steps, each of which can be traced back to the points that went in."""
