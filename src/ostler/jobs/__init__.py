"""Jobs: durable background work with progress.

A job is a row that outlives the server: it is queued, run by a registered runner, and ends as
succeeded, failed or cancelled. What a job does is none of this room's business: rooms above
register a runner for their kind (`download`) and submit requests. `records.py` has the words,
`store.py` the statements, `service.py` what may be asked of jobs, `workshop.py` how they are run,
`progress.py` what a running job tells. Start reading at `Jobs.submit` and `Workshop._run`.
"""
