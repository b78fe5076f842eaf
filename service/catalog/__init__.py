"""The system of record: galleries, cameras, crops, embeddings, models and the log of changes."""
