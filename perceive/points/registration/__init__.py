"""Registration of point clouds: matches, closed forms, RANSAC and iterative closest points, batched in torch."""
