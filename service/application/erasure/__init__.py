"""Erasure: crops chosen, reviewed, removed everywhere, and a receipt."""
