"""The street: what people type, one file per group of verbs."""
