"""The validator: draws receipts by a secret lottery, computes their answers again, and signs what it found."""
