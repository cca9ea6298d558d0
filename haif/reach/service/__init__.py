"""The door of reach: dialling peers by every way there is, meeting them directly, and knowing how we are seen."""
