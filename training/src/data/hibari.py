"""hibari-tts: `say` of a voice program (see voices.py)."""
from hibari import Hibari

voice = Hibari(threads=1)


def say(job):
    voice.save(job["text"], job["path"], speed=job["speed"], seed=job["seed"])
