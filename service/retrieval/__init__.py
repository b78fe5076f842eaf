"""What is made of hits: pure functions over ids, scores and vectors."""
