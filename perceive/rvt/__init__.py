"""RVT: key poses from virtual views of a point cloud (Goyal et al., CoRL 2023 and RSS 2024)."""
