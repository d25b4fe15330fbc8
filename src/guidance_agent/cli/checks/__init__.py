"""What `guidance-agent doctor` looks at."""
