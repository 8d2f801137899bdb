"""Encoders: one file per modality; each turns the frames of one sensor into situated tokens."""
