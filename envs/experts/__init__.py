"""Experts: scripted solvers of the tasks, for demonstrations."""
