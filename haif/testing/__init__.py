"""The simulated world: many machines in one process under virtual time, replayed exactly by a seed."""
