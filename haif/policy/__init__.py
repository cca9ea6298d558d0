"""The brakes, as values: what may go on, and when to come back."""
