"""What is kept: SQLite with one writer and group commit, and on it a journal that shows when it was tampered with."""
