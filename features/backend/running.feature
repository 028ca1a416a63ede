Feature: How a model is run
  What a worker may be started with beside the model, for backends that declare it.

  Background:
    Given a running hive

  @capability.speculation
  Scenario: a text is the same whether or not it is guessed ahead
    Given the model is loaded with speculation off
    And texts were asked for that quote their prompt
    When they are asked for again with speculation auto
    Then each is the text that it was
    And no more guesses were right than were made, and none were made without

  @capability.chat_template
  Scenario: a template of one's own takes the place of the model's
    Given the model is loaded with a template of the kit's own
    When the template is told to write 16 words, to refuse, and never to end
    Then so many words are read as the prompt
    And the other two are refused as requests that are wrong
    And a text can be had

  @capability.cache_types
  Scenario: keys and values that are kept in fewer bits take less memory
    Given the model is loaded
    When it is loaded with keys and values of 8 bits
    Then less memory is set aside for it
    And a text can be had

  @capability.flash_attention
  Scenario: attention is computed the one way and the other
    When the model is loaded with flash attention, and without
    Then a text can be had in one of the two ways, and the other gives one too or is refused

  @capability.lora
  Scenario: an adapter that is none is refused and harms nobody
    When a text is asked for with an adapter of random bytes
    Then it is refused in one sentence
    And the hive is alive and has no workers
