"""Finding what the model should know for one question: facts, cases, rules and memories."""
