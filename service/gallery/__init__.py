"""The gallery index: vectors in memory, filtered and compared exactly."""
