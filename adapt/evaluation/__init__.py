"""How well an encoder ranks: the Market-1501 protocol. The only reader of identities."""
