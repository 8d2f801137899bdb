"""Tasks: what has to be done, and when it is done."""
