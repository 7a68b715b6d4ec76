"""What goes wrong by a user's hand. Each message is one sentence: what, where, what to do."""


class SfumatoError(Exception):
    """A mistake that the user can mend; the command line prints it without a traceback and exits with 1."""


class ModelFileError(SfumatoError):
    """A file of weights or settings that is damaged, hostile or of another kind."""


class ImageFileError(SfumatoError):
    """A picture that cannot be read as one."""


class DataError(SfumatoError):
    """A data set that cannot be used as asked."""


class SettingsError(SfumatoError):
    """Options that contradict each other, the data or the model."""


class RunError(SfumatoError):
    """A run folder that is missing, incomplete, locked or made for something else."""
