"""OpenTelemetry: spans of calls and of their stages, sent to a collector when one is named."""
