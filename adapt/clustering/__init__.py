"""Pseudo-labels from features: exact neighbours, sparse k-reciprocal Jaccard distance, DBSCAN."""
