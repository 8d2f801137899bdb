"""Visuo-tactile transformers and what they are compared to: one picture and one wrench as one feature."""
