"""Where the time goes: of a step, an evaluation, a federated round and an experience, by groups of operators."""
