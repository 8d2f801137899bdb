"""Labelled point clouds on disk: one type for all of them, the layouts of public data sets, and a format of our own."""
