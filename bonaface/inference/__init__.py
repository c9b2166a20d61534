"""One detector for app, command line, API and export; its calibration and its heat maps."""
