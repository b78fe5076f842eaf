"""A thin client of a running service; integrators use the stubs of ``resight.v1`` directly."""
