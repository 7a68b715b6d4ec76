"""Sfumato: diffusion models from a folder of pictures to samples, with one theory and one format."""
