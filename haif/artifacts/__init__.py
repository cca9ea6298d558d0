"""Models as signed, content-addressed artefacts."""
