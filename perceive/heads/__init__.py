"""Task heads: one file per task; each reads its readouts (and tokens) and owns its loss."""
