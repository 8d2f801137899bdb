"""Robots: from a policy's action to the joints of a simulated arm."""
