@B11
Feature: End to end
  The main job: one command, eight phases, real text, nothing left.

  @B11.1
  Scenario: `rbee preflight` passes
    When the command "rbee preflight" is run
    Then it succeeds
    And it says "Ready."
    And no check has failed
    And it says of the backend that it can be used

  Scenario: `rbee preflight` says what has to be mended
    Given an RBEE_HOME that is a file
    When the command "rbee preflight" is run
    Then it is refused with exit code 1
    And a check has failed and says what to do

  @B11.2
  Scenario: a test model can be had with one command
    When the command "rbee models pull" is run
    Then it succeeds
    And the catalog lists the model
    And a text comes out of what was pulled

  @B11.3
  Scenario: the local run completes all eight phases
    Given no hive is running
    When the command that the flow document shows is run
    Then it succeeds
    And it shows what the flow document shows, line by line
    And stdout holds the generated text and nothing else

  @B11.4
  Scenario: no process is left
    Given no hive is running
    When a text is asked for
    Then it succeeds
    And nothing is left running

  @B11.5
  Scenario: the device's memory is back where it was
    Given the memory in use is known
    And a running hive
    And a worker for the model that takes its share of memory
    When the hive is asked to stop
    Then it succeeds
    And no process of rbee holds memory
    And the memory in use is back where it was
