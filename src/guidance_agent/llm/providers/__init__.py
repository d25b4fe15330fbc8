"""What each provider and model can do, and how a prompt becomes its cache plan."""
