"""bonafide: train, check, publish and serve detectors of AI-generated faces."""

__version__ = "0.1.0"
