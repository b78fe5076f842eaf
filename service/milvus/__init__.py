"""A gallery's vectors in Milvus, behind the same port as the built-in index (extra ``milvus``)."""
