"""Labelled point clouds of generated scenes: a tabletop before RGB-D cameras, a room around a LiDAR."""
