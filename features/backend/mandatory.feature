@mandatory
Feature: What every backend does
  Whoever registers a backend promises this; rbee builds on it without asking.

  Scenario: no command waits long for the plugin
    When the backend is asked what it is
    Then its plugin was imported within 1 second
    And its devices were named within 2 seconds

  Scenario: a load shows its progress and becomes ready
    Given a running hive
    When the model is loaded
    Then its progress never fell
    And a load that takes long shows where it is
    And a text can be had

  Scenario: a model is loaded where the backend says that it runs
    When the model is ready
    Then the worker is on a device of the backend
    And that device belongs to the accelerator that the backend names

  Scenario: the memory that a model takes is reckoned before it is loaded
    When the model is ready
    Then memory was set aside for it

  Scenario: tokens arrive in order, with one last word
    Given the model is ready
    When 16 tokens are asked for
    Then the text came whole
    And its tokens are numbered in order
    And it has exactly one last word

  Scenario Outline: no more tokens than asked for
    Given the model is ready
    When <tokens> tokens are asked for
    Then the text came whole
    And it has at most <tokens> tokens
    And a text that ended for its length has all <tokens> tokens

    Examples:
      | tokens |
      | 1      |
      | 16     |

  Scenario: tokens are counted truly
    Given the model is ready
    When 24 tokens are asked for
    Then the text came whole
    And reading it back as a prompt takes about as many tokens as it had

  Scenario: characters of several bytes arrive whole
    Given the model is ready
    When a text is asked for that goes on from bees in many scripts
    Then the text came whole
    And no character of it is broken

  Scenario: a text ends before a stop string
    Given the model is ready
    And 16 tokens were asked for
    And they were the same when they were asked for again, as temperature 0 is greedy
    When the same text is asked for up to a word in it
    Then it is what came before that word
    And a text can be had

  Scenario: a prompt that was read before gives the same text
    Given the model is ready
    When a text is asked for, and again, and again with nothing kept of its prompt
    Then all three are the same text
    And each says how many tokens its prompt has, and how many were kept

  Scenario: what is not declared is refused by its name
    Given the model is ready
    When everything is asked for that is not declared
    Then each is refused with the word that it needs
    And a text can be had

  Scenario Outline: who no longer waits frees the slot within a second
    Given the model is ready for 1 text at a time
    And somebody <waits>
    When they <leave>
    Then the slot is free within 1 second
    And a text can be had

    Examples:
      | waits                                  | leave         |
      | is receiving a long text               | cancel        |
      | is receiving a long text               | are gone      |
      | waits for a long prompt to be read     | cancel        |
      | waits for a long prompt to be read     | are gone      |

  Scenario: a prompt longer than the context is refused with both numbers
    Given the model is ready with a context of 128 tokens
    When a text is asked for with a prompt of 2000 words
    Then it is refused because the prompt is too long
    And the refusal names the tokens of the prompt and the tokens that fit
    And a text can be had

  Scenario: a text ends for its length where it fills the context
    Given the model is ready with a context of 128 tokens
    When a text is asked for that has room for 8 tokens
    Then the text came whole
    And prompt and text were counted truly, and no more than fit
    And it says that it ended for its length
    And a text can be had

  Scenario Outline: a model that cannot be loaded is refused and harms nobody
    Given a running hive that gives a backend whatever it is told to
    And the model's place on the disk is known
    When a text is asked for of a copy that is <damage>
    Then the backend refuses to load it, in one sentence
    And the hive is alive and has no workers

    Examples:
      | damage                      |
      | empty                       |
      | random bytes                |
      | damaged after its beginning |

  Scenario: a device that is not there is refused
    Given a running hive
    When a text is asked for on device 1000
    Then it is refused in one sentence
    And the hive is alive and has no workers

  Scenario: a worker that is stopped ends politely and leaves nothing
    Given a running hive
    And the model is loaded
    And 8 tokens were asked for
    When the worker is stopped
    Then the worker ended by itself, without an error
    And no process of it is left
    And the hive is alive and has no workers

  Scenario: a worker that dies takes nobody along
    Given a running hive
    And the model is loaded
    And somebody is receiving a long text
    When the worker's process is killed
    Then the reader is told that the worker crashed
    And what was received is kept
    And the hive is alive and has no workers

  Scenario: no orphan after SIGKILL of the hive
    Given a running hive
    And the model is loaded
    And somebody is receiving a long text
    When the hive is killed
    Then nothing is left running within 2 seconds
