"""What may be shown, and what is said about what was shown."""
