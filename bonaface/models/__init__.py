"""Classifiers: any of timm's or transformers', and our own; found, downloaded and built with our labels."""
