"""Manifests, examples, batches, synthetic studies."""
