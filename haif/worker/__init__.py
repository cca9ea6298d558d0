"""The worker: offers a model, answers whoever holds a reservation for it, and signs for what it ran."""
