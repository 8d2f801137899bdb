"""Learning from touch with many kinds of sensors: stems and a shared trunk, a code book, simulated presses."""
