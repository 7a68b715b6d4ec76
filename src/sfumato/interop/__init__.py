"""Models of other programs: one file for each foreign format."""
