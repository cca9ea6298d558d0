"""Tools for those who build HAIF; nothing here is imported by the package."""
