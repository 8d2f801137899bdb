"""Posed objects as training data."""
