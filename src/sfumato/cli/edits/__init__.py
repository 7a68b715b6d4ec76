"""The commands of `sfumato edit`, one file a group. Nothing heavy is imported until a command runs."""
