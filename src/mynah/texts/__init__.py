"""What Mynah says to people, in Chinese and English, as data.."""
