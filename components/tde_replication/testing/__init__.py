"""Encrypted clusters for tests: the pytest plugin, and `temporary.cluster` for other programs. See docs/testing.md.

The plugin is loaded by every pytest where this package is installed: until somebody asks for a cluster, it imports nothing else.
"""
