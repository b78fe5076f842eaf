"""The online half: gRPC and REST over an encoder, a catalog and a gallery."""
