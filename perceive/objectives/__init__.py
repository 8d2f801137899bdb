"""Objectives that need no labels: masked modelling, contrastive alignment, vector quantisation."""
