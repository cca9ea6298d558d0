"""The directory: a Kademlia over UDP whose every reply and every record is signed."""
