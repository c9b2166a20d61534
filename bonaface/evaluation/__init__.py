"""Models judged by source, under degradation, and compared."""
