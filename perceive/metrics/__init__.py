"""Metrics of the benchmarks of the field, in numpy: from plain arrays, without models."""
