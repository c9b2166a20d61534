"""Plots, pages and the report's text."""
