"""One frozen backbone, many prompts, mixed batches: an engine, what may be asked of it, and a web server around both.

`engine` owns the model; `service` turns inputs into work for it and answers out of it, and knows nothing of HTTP, so
other ways in may stand beside `http`. Nothing here is imported before it is needed: FastAPI and uvicorn are the extra
`serve`.
"""
