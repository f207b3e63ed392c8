"""What CTranslate2 wants beside the files of Whisper tiny.en that the set-up fetches."""

import json
from pathlib import Path

SIZE = 51864


def vocabulary(folder):
    """The name of each row, for vocabulary.json. The package lists no time stamps; CTranslate2 wants a name for each."""
    tokenizer = json.loads((Path(folder) / "tokenizer.json").read_text())
    names = {id: token for token, id in tokenizer["model"]["vocab"].items()}
    names |= {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    return [names.get(id, f"<|{id}|>") for id in range(SIZE)]
