"""What was done with the data, recorded so that nobody can change it unnoticed."""
