"""Point clouds: out of depth pictures, and operations on them."""
