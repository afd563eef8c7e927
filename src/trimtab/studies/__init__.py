"""Many runs as one study: what scores over seeds say."""
