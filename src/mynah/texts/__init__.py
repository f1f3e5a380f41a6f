"""What Mynah says to people, in Chinese and English, as data in ``en.yaml`` and ``zh.yaml``."""

from mynah.texts.catalog import detect_language, keys, languages, text, variants

__all__ = ["detect_language", "keys", "languages", "text", "variants"]
