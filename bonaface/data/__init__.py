"""Data sets: listed, split, prepared and loaded; no training."""
