"""Recipes, stages and the Trainer."""
