@B11
Feature: End to end
  The main job: one command, eight phases, real text, nothing left.

  @B11.3
  Scenario: the local run completes all eight phases
    Given no hive is running
    When a text of 10 tokens is asked for
    Then it succeeds
    And the eight phases are shown exactly as specified
    And stdout holds the generated text and nothing else

  @B11.4
  Scenario: no process is left
    Given no hive is running
    When a text is asked for
    Then it succeeds
    And nothing is left running
