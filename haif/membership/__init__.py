"""Keeping up with who may take part: lists of revocations from disk and from peers, and the sessions they end."""
