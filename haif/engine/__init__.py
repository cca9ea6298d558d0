"""Running a model: a keyless child process computes tokens in batches, and its parent treats it as hostile."""
