"""What the rest of the package stands on: types, records, the journal, memory and background work."""
