"""What the service talks about: crops, cameras, filters, queries. No transport, no storage."""
