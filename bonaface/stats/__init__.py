"""Statistics: intervals, metrics and certificates; they know no images."""
