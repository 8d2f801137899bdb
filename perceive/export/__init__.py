"""Networks as files for other runtimes. Needs the extra ``export``."""
