"""What the owner of a volume does with it as a whole; programs use volumes through the runtime."""
