"""RGB-D pictures of known objects dropped on a table, with the pose of each of them."""
