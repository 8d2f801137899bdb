"""Object pose on disk: data sets in BOP's layouts, meshes with their units, and files of results."""
