"""What the program of an image is and what it needs, decided from the image's bytes alone; nothing is executed."""
