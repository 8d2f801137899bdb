"""Poses of objects that nothing was trained on: templates rendered from the mesh, compared with what is seen."""
