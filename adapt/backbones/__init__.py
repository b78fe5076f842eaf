"""Networks that turn a crop into a feature: OSNet, timm's, and the pooling and neck on top."""
