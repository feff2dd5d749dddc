"""What pictures are measured with: features, networks, and the protocol."""
