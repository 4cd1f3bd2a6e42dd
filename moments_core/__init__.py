"""What is true without any service: time, transcript, moments, plans, errors."""
