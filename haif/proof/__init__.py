"""What makes an answer checkable: commitments to its transcript, and the statistics of judging it. Values only."""
