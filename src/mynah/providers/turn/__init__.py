"""Turn detectors: they tell from the sound of an utterance whether the speaker has finished."""
