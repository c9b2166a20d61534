"""Clips: videos and animated images, in which every person is followed and judged over time."""
