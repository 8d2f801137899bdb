"""Pictures, films and live views of what sensors saw. Nothing is imported here; OpenCV, PyAV and Rerun load in use."""
