"""Synthetic CT and MR volumes whose truth is known: for training, for tests and for samples."""
