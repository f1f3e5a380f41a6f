"""What is remembered about a device between conversations; one file per service."""
