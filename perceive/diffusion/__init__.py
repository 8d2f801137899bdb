"""A policy by diffusion on a point cloud: the classic alternative to key poses and to situated tokens."""
