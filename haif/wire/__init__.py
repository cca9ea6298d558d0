"""How messages travel: Noise over TCP, calls and streams over Noise, with deadlines, credit and cancellation."""
