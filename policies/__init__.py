"""Policies: episodes on disk, imitation training, learned policies, rollouts and evaluation.

Nothing is imported here; take what you need from its own module, e.g. ``from policies.learned import LearnedPolicy``.
"""
