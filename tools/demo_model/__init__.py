"""How the demo model is made: a small world, a generator of text about it, a tokenizer, a trainer, an exporter."""
