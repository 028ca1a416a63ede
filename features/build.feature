@B1
Feature: Build
  What is built, what it is built from, and what an empty environment gets of it.

  @B1.1
  Scenario: the distribution builds and installs into an empty environment
    When the distribution is built and installed into an empty environment
    Then there is an archive of the source and a wheel
    And everything that rbee needs is installed with it
    And no engine is installed with it
    And the wheel holds the program and no tests

  @B1.2
  Scenario: `rbee-hive` installed from the wheel starts and answers `--version`
    Given rbee installed from its wheel
    When the installed "rbee-hive --version" is run
    Then it succeeds
    And it says the version of this rbee

  @B1.3
  Scenario: `rbee` installed from the wheel starts and answers `--version`
    Given rbee installed from its wheel
    When the installed "rbee --version" is run
    Then it succeeds
    And it says the version of this rbee

  @B1.5
  Scenario: nothing in the worker registry's code touches SQLite
    When the registry's code is loaded alone
    Then it succeeds
    And SQLite was not loaded with it

  Scenario Outline: an environment without engines answers what needs none
    Given rbee installed from its wheel
    When the installed "<command>" is run
    Then it succeeds
    And it says "<words>"

    Examples:
      | command            | words        |
      | rbee --help        | infer        |
      | rbee infer --help  | --max-tokens |
      | rbee-hive --help   | daemon       |
      | rbee plugins       | llamacpp     |
      | rbee models list   | No models    |

  Scenario Outline: an environment without engines says what is missing
    Given rbee installed from its wheel
    When the installed "<command>" is run
    Then it is refused with exit code 1
    And it says "<words>"
    And no traceback is shown
    And nothing is left running

    Examples:
      | command                  | words          |
      | rbee infer --prompt bees | rbee[demo]     |
      | rbee preflight           | rbee[llamacpp] |

  Scenario: a hive of an environment without engines starts and stops
    Given rbee installed from its wheel
    When the installed "rbee hive start" is run
    Then it succeeds
    And the installed "rbee hive status" succeeds
    And the installed "rbee hive stop" succeeds
    And nothing is left running
