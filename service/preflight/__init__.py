"""What is looked at before anything is touched: by a start, and by ``resight config check``."""
