Feature: Bad input
  Whatever is wrong is said in one sentence with a hint and the right exit code; nothing is left running.

  Scenario Outline: a model that is not there or is none
    Given a model reference to <what>
    When a text is asked for
    Then it is refused with exit code <code>
    And it says "<reason>"
    And the reason is one sentence with a hint
    And nothing is left running

    Examples:
      | what                            | code | reason                                |
      | an unknown alias                | 2    | no known alias                        |
      | an unknown scheme               | 2    | no plugin knows                       |
      | nothing                         | 2    | it is empty                           |
      | a name of 5000 letters          | 2    | it is longer than 1024 characters     |
      | a name with a control character | 2    | it contains control characters        |
      | a package that leads outside    | 2    | expected pkg:distribution/file        |
      | a package that is not installed | 1    | is not installed                      |
      | a file that no package has      | 1    | has no file                           |
      | a path that does not exist      | 1    | there is no file                      |
      | an empty folder                 | 1    | it is empty                           |
      | a named pipe                    | 2    | it is neither a file nor a folder     |
      | an empty file                   | 1    | is no GGUF file                       |
      | a file of random bytes          | 1    | is no GGUF file                       |
      | a GGUF of random bytes          | 1    | Cannot load                           |
      | a truncated GGUF                | 1    | the file is truncated                 |
      | a file that may not be read     | 1    | permission denied                     |

  Scenario Outline: an option that cannot be
    Given no hive is running
    When a text is asked for with
      | <option> | <value> |
    Then it is refused with exit code 2
    And it says "<reason>"
    And nothing is left running

    Examples:
      | option         | value   | reason                          |
      | backend        | quantum | Invalid backend: quantum. Valid |
      | device         | 5       | Device 5 not available          |
      | device         | -1      | Invalid --device                |
      | device         | first   | Invalid value for '--device'    |
      | temperature    | nan     | Invalid --temperature           |
      | temperature    | -0.1    | Invalid --temperature           |
      | temperature    | 2.1     | Invalid --temperature           |
      | temperature    | inf     | Invalid --temperature           |
      | top-p          | 1.5     | Invalid --top-p                 |
      | top-p          | nan     | Invalid --top-p                 |
      | top-k          | -1      | Invalid --top-k                 |
      | min-p          | nan     | Invalid --min-p                 |
      | repeat-penalty | 0       | Invalid --repeat-penalty        |
      | max-tokens     | 0       | Invalid --max-tokens            |
      | seed           | -1      | Invalid --seed                  |
      | timeout        | 0       | Invalid --timeout               |
      | timeout        | nan     | Invalid --timeout               |
      | context        | 0       | Invalid --context               |
      | stop           |         | Invalid --stop                  |
      | node           | a b     | Invalid node                    |

  Scenario: a backend that cannot run here is an error, never a quiet run elsewhere
    Given no hive is running
    When a text is asked for with
      | backend | cuda |
    Then it is refused with exit code 1
    And it says "Backend CUDA is not available"
    And it says "available here: llamacpp-cpu"
    And the reason is one sentence with a hint
    And nothing is left running

  Scenario Outline: an empty prompt
    Given no hive is running
    When the model is given <prompt>
    Then it is refused with exit code 2
    And it says "the prompt is empty"
    And nothing is left running

    Examples:
      | prompt       |
      | no text      |
      | blanks       |
      | no chat text |

  Scenario: a prompt that is no text
    Given no hive is running
    When bytes that are no text are piped in
    Then it is refused with exit code 2
    And it says "not UTF-8"
    And nothing is left running

  Scenario: a prompt longer than the context
    Given a running hive
    When a prompt of 300 words is given to a context of 256 tokens
    Then it is refused with exit code 2
    And both numbers of tokens are named
    And the reason is one sentence with a hint
    And the hive is alive

  Scenario: a folder that may not be written
    Given an RBEE_HOME without write permission
    When a text is asked for
    Then it is refused with exit code 1
    And it says "permission denied"
    And the reason is one sentence with a hint
    And nothing is left running

  Scenario: a file where RBEE_HOME should be
    Given an RBEE_HOME that is a file
    When a text is asked for
    Then it is refused with exit code 1
    And the reason is one sentence with a hint
    And nothing is left running

  Scenario Outline: a configuration that cannot be
    Given a configuration that <says>
    When a text is asked for
    Then it is refused with exit code 2
    And it says "<reason>"
    And the reason is one sentence with a hint
    And nothing is left running

    Examples:
      | says                      | reason           |
      | is no TOML                | is not valid TOML |
      | sets an unknown name      | is no setting  |
      | sets words for a number   | must be a number |

  Scenario: a node that does not answer
    Given a port on which nobody listens
    When a text is asked for on that node
    Then it is refused with exit code 1
    And it says "after 3 attempts"
    And the reason is one sentence with a hint

  Scenario: a node that says nothing
    Given another program that listens on a port and never answers
    When a text is asked for on that node
    Then it is refused with exit code 1
    And it takes no longer than 8 seconds
    And the reason is one sentence with a hint

  Scenario Outline: a command that does not exist or cannot work
    Given no hive is running
    When the command "<command>" is run
    Then it is refused with exit code <code>
    And no traceback is shown

    Examples:
      | command                      | code |
      | rbee unknown                 | 2    |
      | rbee infer --unknown         | 2    |
      | rbee workers shutdown        | 2    |
      | rbee workers list            | 1    |
      | rbee hive stop               | 1    |
      | rbee hive status             | 1    |
      | rbee logs worker-none        | 1    |
      | rbee-hive daemon --port 70000 | 2   |
      | rbee-hive daemon --port -1   | 2    |
