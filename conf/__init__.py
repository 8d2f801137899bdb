"""The Hydra tree: YAML files only, a package so that they ship in the wheel."""
