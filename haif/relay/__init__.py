"""The blind relay: it joins two connections of peers that cannot dial each other, and sees only ciphertext."""
