"""Figures anyone can measure: `make bench`."""
