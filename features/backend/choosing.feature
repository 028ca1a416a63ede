Feature: How tokens are chosen
  What a backend declares beside plain sampling. One that obeys a single sampler without the word for all is held to that.

  Background:
    Given the model is ready

  @capability.samplers
  Scenario Outline: a sampler does what its name says
    When texts are asked for with and without <sampler>
    Then with it <what comes>

    Examples:
      | sampler           | what comes                        |
      | frequency_penalty | another text comes                |
      | presence_penalty  | another text comes                |
      | dry_multiplier    | another text comes                |
      | typical_p         | another text comes                |
      | xtc_probability   | another text comes                |
      | mirostat          | another text comes                |
      | top_n_sigma       | the likeliest text comes          |
      | logit_bias        | one token comes again and again   |
      | min_tokens        | the end comes later               |
      | ignore_eos        | no end comes                      |

  @capability.logprobs
  Scenario Outline: each token says how likely it was
    When 8 tokens are asked for, each with the <count> likeliest ones
    Then each has <count> of them, likeliest first, with probabilities of at most 1 together
    And each token that came was the likeliest

    Examples:
      | count |
      | 0     |
      | 5     |

  @capability.grammar
  Scenario Outline: a text has the form that it is to have
    When texts are asked for in the form of a <form>
    Then each comes to its end in that form

    Examples:
      | form               |
      | grammar            |
      | regular expression |

  @capability.json_schema
  Scenario Outline: a text fits a schema
    When texts are asked for in the form of a <form>
    Then each comes to its end in that form

    Examples:
      | form   |
      | schema |

  @capability.grammar
  Scenario Outline: a form that is none is refused and harms nobody
    When a text is asked for in the form of a <form> that is none
    Then it is refused as a request that is wrong
    And a text can be had

    Examples:
      | form               |
      | grammar            |
      | regular expression |

  @capability.json_schema
  Scenario Outline: a schema that is none is refused and harms nobody
    When a text is asked for in the form of a <form> that is none
    Then it is refused as a request that is wrong
    And a text can be had

    Examples:
      | form   |
      | schema |
