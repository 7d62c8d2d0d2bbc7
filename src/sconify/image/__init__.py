"""Read and write container images: sources, sinks, layers, configuration. No code of an image is ever executed."""
