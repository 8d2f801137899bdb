"""Following the pose of one known object through a stream of RGB-D pictures."""
