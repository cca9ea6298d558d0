"""How a peer is reached that stands behind a NAT: what others see of us, where to dial, and in which order."""
