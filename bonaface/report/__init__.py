"""Plots, pages and the report's words."""
