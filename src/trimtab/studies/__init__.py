"""Many runs make a study: plan, packs, executors, ledger, and the statistics of seeds."""
