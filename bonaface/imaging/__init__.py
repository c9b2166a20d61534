"""Images: read within limits, faces, degradations and transforms; no models."""

FACE_MARGIN = 0.15  # border of a face crop, on each side, as a share of the face box
