Feature: Inference
  Text comes out as it is generated, the way it was asked for; what goes wrong is said, and what came is kept.

  Scenario: progress is kept apart from the text
    Given a running hive
    When a text is asked for
    Then it succeeds
    And stdout holds the generated text and nothing else
    And the summary counts tokens, time and speed

  Scenario: one object instead of lines
    Given a running hive
    When a text of 5 tokens is asked for with
      | json |
    Then it succeeds
    And stdout is one object with the text and 5 tokens
    And the object names model, backend, worker and the phases with their durations
    And stderr is empty

  Scenario: the text alone
    Given a running hive
    When a text is asked for with
      | quiet |
    Then it succeeds
    And stdout holds a text
    And stderr is empty

  Scenario: a prompt from a pipe
    Given a running hive
    When a text is asked for through a pipe
    Then it succeeds
    And stdout holds a text

  Scenario: the same seed gives the same text
    Given a running hive
    And a text was asked for with seed 7
    When a text is asked for with
      | seed | 7 |
    Then it succeeds
    And the text is the same as before

  Scenario: another seed gives another text
    Given a running hive
    And a text was asked for with seed 7
    When a text is asked for with
      | seed | 8 |
    Then it succeeds
    And the text is another one than before

  Scenario: a text goes on as before from a prompt whose place others had since
    Given a running hive
    And two long prompts were answered by a worker with one slot
    When the first of them is given to it again
    Then it succeeds
    And the text is the same as before

  Scenario: a text ends before a stop string
    Given a running hive
    And a text was asked for with seed 7
    When a text is asked for that stops at a word of that text
    Then it succeeds
    And the text is what came before that word

  Scenario: no more tokens than asked for
    Given a running hive
    When a text of 6 tokens is asked for
    Then it succeeds
    And it says "Total tokens: 6"

  Scenario: a question is asked through the model's template
    Given a running hive
    When the model is asked "What is 2 + 2?"
    Then it succeeds
    And the text mentions "4"
    And the text ended by itself
    And it says "through the model's chat template"

  @scripted
  Scenario: without a template the text goes on
    Given a running hive
    And a model whose text is "and on it goes"
    When the model is asked "Once upon a time"
    Then it succeeds
    And stdout is "and on it goes"
    And it does not say "chat template"

  @scripted
  Scenario: a conversation with a model that has no template is refused
    Given a running hive
    And a model whose text is "and on it goes"
    When a conversation is insisted on
    Then it is refused with exit code 2
    And it says "no chat template"

  Scenario: an idle worker is reused
    Given a running hive
    And a worker for the model
    When a text is asked for
    Then it succeeds
    And phase 1 found that worker
    And phase 8 followed
    And the hive lists one worker

  Scenario: a hive that was there is left running
    Given a running hive
    When a text is asked for
    Then it succeeds
    And the hive is alive
    And the hive has an idle worker

  @scripted
  Scenario: Ctrl+C cancels, keeps the text and frees the worker
    Given a running hive
    And a model that writes for ever
    And somebody is receiving its text
    When the command gets SIGINT
    Then it is refused with exit code 130
    And what was received is kept
    And the worker is idle within 1 second

  @scripted
  Scenario: a reader that goes away ends the generation
    Given a running hive
    And a model that writes for ever
    And somebody is receiving its text
    When the command gets SIGKILL
    Then the worker is idle within 2 seconds

  @scripted
  Scenario: a busy worker is asked again, then given up
    Given a running hive
    And a model that writes for ever
    And somebody is receiving its text
    When a text is asked for without queueing
    Then it is refused with exit code 75
    And it was tried again 3 times
    And it says "All slots are busy (1 of 1)"

  @scripted
  Scenario: a busy worker that becomes free is used
    Given a running hive
    And a model that writes 30 words in a second
    And somebody is receiving its text
    When a text is asked for
    Then it succeeds
    And the text was received whole

  @scripted
  Scenario Outline: a worker that dies while it writes: the text is kept
    Given a running hive
    And a model that dies of <signal> at word 5
    When a text of 20 tokens is asked for
    Then it is refused with exit code 1
    And it says "<signal>"
    And it says "tokens 5/20"
    And stdout holds 5 words
    And the hive is alive and has no workers

    Examples:
      | signal  |
      | SIGSEGV |
      | SIGABRT |
      | SIGKILL |

  @scripted
  Scenario: a hive that is killed while it passes on text: the text is kept
    Given a running hive
    And a model that writes for ever
    And somebody is receiving its text
    When the hive is killed
    Then the command ends with exit code 1
    And it says "the hive is gone"
    And what was received is kept
    And nothing is left running within 2 seconds

  @scripted
  Scenario: a worker that falls silent is given up
    Given a running hive that waits 1 second for a token
    And a model that hangs at word 5
    When a text of 20 tokens is asked for
    Then it is refused with exit code 1
    And it says "gave no sign of life for 1 s"
    And stdout holds 5 words

  @scripted
  Scenario: a command's own deadline is kept
    Given a running hive
    And a model that writes for ever
    When a text of 400 tokens is asked for with
      | timeout | 1 |
    Then it is refused with exit code 1
    And it takes no longer than 10 seconds
    And it says "deadline of 1 s"
    And the worker is idle within 1 second

  @scripted
  Scenario: characters of several bytes arrive whole
    Given a running hive
    And a model whose text is "Grüße 🐝 蜂蜜"
    When a text is asked for
    Then it succeeds
    And stdout is "Grüße 🐝 蜂蜜"

  @scripted
  Scenario: a worker that floods its log does not stop anything
    Given a running hive
    And a model that floods its log
    When a text of 20 tokens is asked for
    Then it succeeds
    And stdout holds 20 words
