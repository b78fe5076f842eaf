"""Generated stubs of the public API (see proto/resight/v1). Do not edit."""
