"""Point Transformer V3 in pure torch: no compiled extension, deterministic, each cloud on its own."""
