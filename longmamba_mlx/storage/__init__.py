"""Files that are never half-written, and untrusted JSON and safetensors headers."""
