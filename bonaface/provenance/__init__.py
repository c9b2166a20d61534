"""What a file says about itself; never part of a score."""
