"""Statistics: intervals, metrics and certificates, on plain numbers."""
