@B5
Feature: Daemon lifecycle
  A hive is one process per RBEE_HOME: it starts, says who it is and where, and takes its workers along when it ends.

  @B5.1
  Scenario: the hive starts
    Given no hive is running
    When a hive is started
    Then its note names its process and its port
    And only its owner may read the note

  @B5.2
  Scenario: health answers alive with version and API version
    Given a running hive
    When its health is asked
    Then it is alive
    And it has the version of this rbee
    And it speaks version v1 of the interface

  @B5.3
  Scenario: the log says the worker registry is in memory and ephemeral
    When a hive is started
    Then the hive's log says "Worker registry: in-memory (ephemeral)"

  @B5.4
  Scenario: the log says the model catalog is SQLite and persistent
    When a hive is started
    Then the hive's log says "Model catalog: SQLite (persistent)"

  @B5.5 @scripted
  Scenario: a graceful shutdown ends every worker
    Given a running hive
    And a worker that writes 20 words
    And a worker that writes 30 words
    When the hive is asked to stop
    Then it succeeds
    And it says "Shut down 2 workers"
    And nothing is left running

  Scenario: a hive runs in the background
    Given no hive is running
    When the command "rbee hive start --port 0" is run
    Then it succeeds
    And a hive answers
    And the command "rbee hive stop" ends it
    And nothing is left running

  Scenario: the status of a hive can be asked
    Given a running hive
    When the command "rbee hive status" is run
    Then it succeeds
    And it names the hive's process and port

  @scripted
  Scenario: what is settled for a model counts without a restart
    Given a running hive
    And a model whose text is "one two three"
    And it is settled that "ada" means the model, and writes 2 tokens
    When the command "rbee hive reload" is run
    Then it says "Changed: model.ada"
    And "ada" answers "one two "

  @scripted
  Scenario: a wrong line in the settings changes nothing and is named
    Given a running hive
    And a line in the settings that is wrong
    When the command "rbee hive reload" is run
    Then it is refused with exit code 2
    And it says "config.toml line 1"
    And a hive answers

  Scenario: a second hive on the same RBEE_HOME is refused
    Given a running hive
    When a second hive is started
    Then it is refused with exit code 1
    And it names the hive's process and port
    And the reason is one sentence with a hint
    And the first hive is alive

  Scenario: a port in use is refused
    Given another program that listens on a port
    When a hive is started on that port
    Then it is refused with exit code 1
    And it says "Cannot listen on"
    And the reason is one sentence with a hint
    And nothing is left running

  Scenario: an address that others can reach needs a key
    Given no hive is running
    When a hive is started for everybody in the network
    Then it is refused with exit code 2
    And the reason is one sentence with a hint
    And nothing is left running

  Scenario: a hive starts after one that was killed
    Given a hive that was killed
    When a hive is started
    Then its note names its process and its port
    And the hive has no workers

  Scenario: an ordinary session leaves only models, logs and the catalog
    Given a running hive
    When the hive is asked to stop
    Then it succeeds
    And RBEE_HOME holds only logs, models and the catalog
