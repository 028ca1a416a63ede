@B6
Feature: Worker spawn
  One call gets a worker for a model: the one that is there, or a new one.

  @B6.1
  Scenario: a spawn consults the catalog
    Given a hub that has a model
    And a running hive
    And the hub's model was downloaded
    And the hub has lost that model
    When a worker is wanted for the hub's model
    Then it becomes idle

  @B6.2
  Scenario: a spawn downloads a missing model and updates the catalog
    Given a hub that has a model
    And a running hive
    When a worker is wanted for the hub's model
    Then it becomes idle
    And the file is whole
    And the catalog lists the hub's model

  @B6.3
  Scenario: a spawn uses the cached model
    Given a running hive
    And the model was used before
    When a worker is wanted for the model
    Then the hive knows that worker
    And no model was copied
    And the catalog lists the model once

  @B6.4
  Scenario: the worker appears in the registry
    Given a running hive
    When a worker is wanted for the model
    Then the hive lists one worker
    And it becomes idle

  @B6.5
  Scenario: the answer is the worker's id, its address and the state loading
    Given a running hive
    When a worker is wanted for the model
    Then the answer names the worker and where it listens
    And the answer's state is "loading"

  @scripted
  Scenario: concurrent requests for one model give one worker
    Given a running hive
    When 8 people want a worker that takes half a second to load
    Then all are given the same worker
    And the hive lists one worker

  @scripted
  Scenario: different models get workers of their own
    Given a running hive
    And a worker that writes 20 words
    When a worker is wanted that writes 30 words
    Then the hive lists 2 workers

  @scripted
  Scenario: a model that needs more memory than there is is refused before anything starts
    Given a running hive
    And a model that needs 100 million megabytes
    When a text is asked for
    Then it is refused with exit code 1
    And it says "Insufficient RAM: need 100000000 MB, have"
    And the reason is one sentence with a hint
    And the hive has no workers

  @scripted
  Scenario: a slow load shows its progress and is waited for
    Given a running hive that waits 1 second for a sign of life
    And a model that takes 2 seconds to load and shows its progress
    When a text is asked for
    Then it succeeds
    And phase 7 ends with "✓ Worker ready!"

  @scripted
  Scenario: a load that hangs is given up
    Given a running hive that waits 1 second for a sign of life
    And a model that hangs while loading
    When a text is asked for
    Then it is refused with exit code 1
    And it says "stopped making progress"
    And the reason is one sentence with a hint
    And the hive has no workers within 5 seconds

  @scripted
  Scenario Outline: a load that fails is a failure of the worker, and the hive lives on
    Given a running hive
    And a model that <does>
    When a text is asked for
    Then it is refused with exit code 1
    And it says "<reason>"
    And the reason is one sentence with a hint
    And the hive is alive and has no workers

    Examples:
      | does                         | reason          |
      | aborts while loading         | SIGABRT         |
      | exits with 7 while loading   | exit code 7     |
      | reports that it is damaged   | it is damaged   |

  @scripted
  Scenario: a worker that crashed is replaced at the next request
    Given a running hive
    And a worker that writes 20 words
    And that worker was killed
    When a text is asked for
    Then it succeeds
