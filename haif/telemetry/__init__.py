"""What is seen: metrics, spans, and nothing that a tenant wrote."""
