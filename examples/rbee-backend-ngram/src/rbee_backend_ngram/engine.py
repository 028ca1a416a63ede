"""The engine: knows what followed each run of up to two words in its text, and how often."""

import random
import re
import time
from collections import Counter, defaultdict

from rbee_core.backend import Engine, EngineInfo, Finished, PromptDone, Token
from rbee_core.errors import ModelLoadFailed, PromptTooLong

ORDER = 3
CONTEXT_TOKENS = 4096
PACE_S = 0.005  # for a word: looking it up takes no time at all, and you would never see it stream
WORD = re.compile(r"\s*\S+")


class NgramEngine(Engine):
    """One learnt text. A token is a word with the space before it."""

    def __init__(self, words, context_tokens):
        self._context_tokens = context_tokens
        self._followers = defaultdict(Counter)
        for end, word in enumerate([*words, "\n" + words[0]]):  # and begin again: it never ends
            for length in range(min(ORDER, end + 1)):
                self._followers[tuple(words[end - length : end])][word] += 1

    def info(self):
        """Say what was loaded."""
        return EngineInfo(context_tokens=self._context_tokens, architecture="ngram")

    def generate(self, request, cancel):
        """Yield one token after another, then why it ended."""
        seen = WORD.findall(request.text())
        room = self._context_tokens - len(seen)
        if room < 1:
            raise PromptTooLong(prompt_tokens=len(seen), context_tokens=self._context_tokens)
        yield PromptDone(len(seen))
        chance = random.Random(request.seed)
        for _ in range(min(room, request.max_tokens or room)):
            if cancel.is_set():
                return
            time.sleep(PACE_S)
            seen.append(self._choose(seen[1 - ORDER :], request, chance))
            yield Token(seen[-1])
        yield Finished("length")

    def _choose(self, last, request, chance):
        """Draw the next word; what was never seen after two words is looked up after one, then after none."""
        known = next(tail for n in range(len(last) + 1) if (tail := tuple(last[n:])) in self._followers)
        followers = self._followers[known].most_common(request.top_k or None)
        if request.temperature == 0:
            return followers[0][0]
        weights = [(count / followers[0][1]) ** (1 / request.temperature) for _, count in followers]
        return chance.choices([word for word, _ in followers], weights)[0]


def learn(model, options, progress):
    """Return an engine that has read `model`."""
    try:
        words = WORD.findall(model.path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelLoadFailed(reference=model.reference, why="it is no UTF-8 text") from error
    if not words:
        raise ModelLoadFailed(reference=model.reference, why="it has no words")
    progress(0.5, f"{len(words)} words read")
    return NgramEngine(words, options.context_tokens or CONTEXT_TOKENS)
