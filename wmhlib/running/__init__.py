"""Running a study: safe file writing, locks, checkpoints, provenance, notebook parameters, code digests, commands."""
