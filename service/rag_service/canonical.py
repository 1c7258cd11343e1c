"""One spelling for texts that Unicode calls canonically equal. Pure."""

from tokenizers.normalizers import NFC

# Not `unicodedata`, which sorts the marks on a letter in a time that grows with the square of their number: a single
# text of a hundred thousand would keep the process busy for a minute.
_NFC = NFC()


def canonical(text: str) -> str:
    """The text in Unicode's normalisation form C."""
    return text if text.isascii() else _NFC.normalize_str(text)
