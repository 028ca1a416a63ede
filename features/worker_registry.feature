@B3
Feature: Worker registry (in memory)
  Which workers there are is known to the hive alone, for as long as it runs.

  @B3.1
  Scenario: the registry initialises without a database file
    When a hive is started
    Then the hive has no workers
    And no registry database exists

  @B3.2
  Scenario: workers can be registered
    Given a running hive
    When a worker is wanted for the model
    Then the hive's log says "registered at"
    And the hive knows that worker

  @B3.3
  Scenario: workers can be listed
    Given a running hive
    And a worker for the model
    When the command "rbee workers list" is run
    Then it succeeds
    And it names that worker, its model, its backend and its state

  Scenario: the list says how much of the last prompt was cached
    Given a running hive
    And a text was asked for with seed 7
    When the command "rbee workers list" is run
    Then it succeeds
    And it says "tokens of its last prompt were cached"

  @B3.4
  Scenario: the list is empty after a hive restart
    Given a running hive
    And a worker for the model
    When the hive is restarted
    Then the hive has no workers

  @B3.5
  Scenario: no registry database file exists
    Given a running hive
    And a worker for the model
    When the hive is asked to stop
    Then it succeeds
    And no registry database exists

  @scripted
  Scenario: a worker that is shut down leaves the registry
    Given a running hive
    And a worker that writes 20 words
    When the command "rbee workers shutdown --all" is run
    Then it succeeds
    And the hive has no workers
    And the worker's end is known as "unloaded"

  @scripted
  Scenario: an idle worker is stopped
    Given a running hive that keeps idle workers for 1 second
    When a worker is wanted that writes 20 words
    Then the hive has no workers within 4 seconds
    And the worker's end is known as "evicted"

  @scripted
  Scenario: a worker that is killed leaves the registry
    Given a running hive
    And a worker that writes 20 words
    When that worker is killed
    Then the hive has no workers within 2 seconds
    And the worker's end is known as "crashed"

  @scripted
  Scenario: a worker's log can be read while it runs and afterwards
    Given a running hive
    And a worker that writes rubbish to its log
    When the worker's log is asked for
    Then it succeeds
    And it shows control characters as text

  @scripted
  Scenario: the health of workers can be asked
    Given a running hive
    And a worker that writes 20 words
    When the command "rbee workers health" is run
    Then it succeeds
    And it says "ok"

  Scenario: a worker's life can be followed as it happens
    Given a running hive
    And somebody who follows its events
    When a text is asked for
    Then they hear of a worker that was launching, loading, idle, busy and idle again, in this order
