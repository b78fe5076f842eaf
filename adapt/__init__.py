"""The offline half: learns an encoder from unlabelled crops and exports it as a bundle."""
