"""What pulls a recipe beside its conditions: a classifier, a CLIP, a weaker run."""
