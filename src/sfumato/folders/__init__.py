"""A run as a folder on disk: the model, its captions, its classifier, and what diffusers opens of it."""
