@B7
Feature: Ephemeral mode
  Without a hive on this machine, `rbee infer` brings its own and takes it away again.

  @B7.1
  Scenario: the keeper skips phase 1
    Given no hive is running
    When a text is asked for
    Then it succeeds
    And phase 1 is "Skipped (ephemeral mode)"

  @B7.2
  Scenario: the keeper connects to the pool manager
    Given no hive is running
    When a text is asked for
    Then it succeeds
    And phase 2 is "✓ Pool health: healthy (version 0.1.0)"

  @B7.3
  Scenario: the keeper creates no `workers.db`
    Given no hive is running
    When a text is asked for
    Then it succeeds
    And no registry database exists

  Scenario: no hive is left behind
    Given no hive is running
    When a text is asked for
    Then it succeeds
    And nothing is left running
    And RBEE_HOME holds only logs, models and the catalog

  @scripted
  Scenario Outline: nothing is left when the command is ended from outside
    Given a model that writes for ever
    And somebody is receiving its text
    When the command gets <signal>
    Then it is refused with exit code <code>
    And nothing is left running within 2 seconds

    Examples:
      | signal  | code |
      | SIGINT  | 130  |
      | SIGTERM | 143  |
      | SIGKILL | -9   |

  @scripted
  Scenario: a second Ctrl+C ends the command at once
    Given a model that ignores being cancelled and told to stop
    And somebody is receiving its text
    When the command is interrupted twice
    Then it is refused with exit code 130
    And it takes no longer than 2 seconds
    And nothing is left running within 2 seconds

  @scripted
  Scenario: two commands at a time do not disturb each other
    Given a model that writes 30 words in a second
    And somebody is receiving its text
    When a text is asked for
    Then it succeeds
    And the text was received whole
    And nothing is left running
