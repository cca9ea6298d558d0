"""The only code, besides the rooms' services, that touches the operating system."""
