"""Many trainings, one report."""
