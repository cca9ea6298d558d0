"""Who speaks: keys, signatures, certificates, and the memory that refuses a message heard before."""
