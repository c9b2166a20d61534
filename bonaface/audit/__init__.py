"""Shortcuts in a data set that reveal its labels."""
