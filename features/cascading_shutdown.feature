@B8
Feature: Cascading shutdown
  Whatever ends a hive, its workers end with it: politely where there is time, by force where there is none.

  @B8.1 @scripted
  Scenario Outline: SIGTERM and SIGINT are handled
    Given a running hive
    And a worker that writes 20 words
    When the hive gets <signal>
    Then it succeeds
    And it says "Shut down 1 worker."
    And nothing is left running

    Examples:
      | signal  |
      | SIGTERM |
      | SIGINT  |

  @B8.2 @scripted
  Scenario: every worker is asked first, then terminated, then killed, each step bounded
    Given a running hive that gives workers 2 seconds to stop
    And workers that stop when asked, when terminated and when killed
    When the hive is asked to stop
    Then it takes no longer than 4 seconds
    And each worker was asked first
    And only those that did not stop were terminated
    And nothing is left running

  @B8.3 @scripted
  Scenario: the registry is cleared
    Given a running hive that gives workers 4 seconds to stop
    And a worker that stops when asked
    And a worker that stops when killed
    When the hive begins to stop
    Then the worker that stops when asked leaves the registry at once
    And the worker that stops when killed leaves it within 5 seconds
    And nothing is noted as running

  @scripted
  Scenario: a second signal forces
    Given a running hive that gives workers 30 seconds to stop
    And a worker that stops when killed
    When the hive is interrupted twice
    Then it takes no longer than 2 seconds
    And nothing is left running

  @scripted
  Scenario: a running request may finish before the hive stops
    Given a running hive
    And a model that writes 30 words in a second
    And somebody is receiving its text
    When the hive is asked to stop
    Then it succeeds
    And the text was received whole

  Scenario: no orphan after SIGKILL
    Given a running hive
    And somebody is receiving a long text
    When the hive is killed
    Then nothing is left running within 2 seconds

  @scripted
  Scenario Outline: no orphan after SIGKILL, whatever the worker is doing
    Given a running hive
    And a model that <does>
    And somebody is waiting for its text
    When the hive is killed
    Then nothing is left running within 2 seconds

    Examples:
      | does                               |
      | holds the interpreter for a minute |
      | hangs while loading                |
      | ignores signals                    |
      | starts a child process             |
      | writes for ever                    |

  @scripted
  Scenario: no orphan after SIGKILL, not even a frozen worker
    Given a running hive
    And a worker that writes 20 words
    And that worker is frozen
    When the hive is killed
    Then nothing is left running within 2 seconds
