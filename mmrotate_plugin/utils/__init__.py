"""What every room uses: errors, messages, whole files, safe checkpoints. Imports nothing else of the package."""
