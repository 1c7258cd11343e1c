"""Where models come from: a URI is located, exported once to ONNX, and served from the prepared files."""


class ModelError(Exception):
    """A model cannot be used. The message is one line: which model, what is wrong with it, what to do."""
