"""6D object pose: models, symmetries, rendering, estimators."""
