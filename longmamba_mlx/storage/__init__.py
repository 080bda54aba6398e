"""Atomic writes, and checked reading of untrusted JSON and safetensors files."""
