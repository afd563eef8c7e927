"""From study.json to pages, tables and figures. Files only: no torch, nothing live, no network."""
