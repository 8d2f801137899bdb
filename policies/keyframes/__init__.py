"""Keyframes: the poses of a demonstration that matter, found, stored and sampled."""
