"""Labelled point clouds as training data."""
