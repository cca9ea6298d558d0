"""What is said: one file per conversation, with its messages, method names and topics."""
