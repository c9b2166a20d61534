"""Images: read within limits, faces, degradations and transforms; no models."""
