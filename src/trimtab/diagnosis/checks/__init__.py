"""The checks, one file each. `trimtab ls checks` lists them, docs/doctor.md says what their findings mean."""
